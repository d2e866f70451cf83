"""Real OpenSSH servers as devices (:mod:`.lab`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Lab, find_sshd


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
