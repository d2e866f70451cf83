"""Real OpenSSH servers as devices (:mod:`.lab`), and what is deployed to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .deployer import Deployer
from .lab import Lab, find_sshd
from .wheels import write_wheels

if TYPE_CHECKING:
    from qmdd.models import Detector


@pytest.fixture
def ssh_lab(tmp_path: Path) -> Iterator[Lab]:
    """Devices to deploy to: ``ssh_lab.device("device-a")``; all end with the test."""
    sshd = find_sshd()
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH is missing: apt install openssh-server openssh-client")
    if os.getuid() == 0:
        # Where sshd, run by root, keeps the part of itself that has no rights.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    lab = Lab(tmp_path, sshd)
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels for a device that reaches no index."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheels(folder)
    return folder


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, tiny_detector: Callable[..., Detector]
) -> Path:
    """The bundle of a narrow detector, as ``qmdd export`` makes it. Read only."""
    from qmdd.exporter.export import export_bundle
    from qmdd.exporter.source import Source

    folder = tmp_path_factory.mktemp("exported") / "bundle"
    source = Source(tiny_detector(), "resnet23", 2, {"sha256": "0" * 64})
    export_bundle(source, folder, verify=False)
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported bundle, of the test's own."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def environments() -> dict[str, Path]:
    """Where :class:`Deployer` keeps the first environment that a test made: others get copies."""
    return {}


@pytest.fixture
def deployer(
    ssh_lab: Lab, bundle: Path, wheels: Path, environments: dict[str, Path], tmp_path_factory: Any
) -> Deployer:
    """``deployer("device-a")`` runs ``qmdd deploy`` as a user does."""
    return Deployer(ssh_lab, bundle, wheels, environments, tmp_path_factory)
