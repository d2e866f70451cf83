"""A tiny bundle, its source beside it, and what is gathered of it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qmdd.runtime.bundle import MANIFEST, manifest_bytes

#: Changes a copy of the bundle's manifest, and gives the copy's folder.
Changed = Callable[[Callable[[dict[str, Any]], None]], Path]


@contextlib.contextmanager
def _shallow() -> Iterator[None]:
    """One block to a stage, so that an export takes a second."""
    from qmdd.models import resnet

    layouts = {name: (block, (1, 1, 1, 1)) for name, (block, _) in resnet.LAYOUTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "LAYOUTS", layouts)
        yield


@pytest.fixture(autouse=True)
def shallow() -> Iterator[None]:
    """While a test runs, the tiny checkpoint can be loaded."""
    with _shallow():
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, settle: Any, image_folder: Path) -> Path:
    """``latent.safetensors``, a 2-bit ResNet of 1/8 of the width, and ``bundle``, made of it."""
    import torch

    from qmdd.calibration.train import save_detector
    from qmdd.exporter.export import export_bundle
    from qmdd.models import build_detector

    made = tmp_path_factory.mktemp("report")
    with _shallow(), torch.random.fork_rng():
        torch.manual_seed(1)
        detector = settle(build_detector("resnet23", 2, width=1 / 8))
        for name, parameter in detector.named_parameters():
            if name == "stages.1.0.conv1.act.prelu.weight":
                parameter.data[0] = -0.1  # its chain can be folded in part only
        save_detector(detector, made / "latent.safetensors", {})
        images = sorted(image_folder.rglob("*.png"))[:2]
        export_bundle(made / "latent.safetensors", made / "bundle", images=images)
    return made


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Path:
    return folder / "bundle"


@pytest.fixture(scope="session")
def checkpoint(folder: Path) -> Path:
    return folder / "latent.safetensors"


@pytest.fixture(scope="session")
def images(image_folder: Path) -> list[Path]:
    return sorted((image_folder / "alpha").rglob("*.png"))[:3]


@pytest.fixture(scope="session")
def gathered(bundle: Path, checkpoint: Path, images: list[Path]) -> Any:
    """With its source."""
    from qmdd.exporter.report.gather import Asked, gather

    with _shallow():
        return gather(bundle, Asked(checkpoint=checkpoint, images=images, threads=1))


@pytest.fixture
def changed(bundle: Path, tmp_path: Path) -> Changed:
    def change(how: Callable[[dict[str, Any]], None]) -> Path:
        copy = tmp_path / "changed"
        shutil.copytree(bundle, copy)
        manifest = json.loads((copy / MANIFEST).read_bytes())
        how(manifest)
        (copy / MANIFEST).write_bytes(manifest_bytes(manifest))
        return copy

    return change


@pytest.fixture
def invoke() -> Callable[..., Any]:
    """``invoke("report", folder)``; exceptions end as they do for a user."""
    from click.testing import CliRunner

    from qmdd.cli.main import cli

    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])
