"""Ways to run the command line: in this process, or as a user does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

Invoke = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def invoke() -> Invoke:
    """``invoke("export", "--bits", 2)``; exceptions end as they do for a user."""
    from qmdd.cli.main import cli

    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture
def process() -> Process:
    """The same as a process of its own; ``code`` runs before the command line is started."""

    def run(
        *args: object, code: str = "", stdout: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        script = f"{code}\nfrom qmdd.cli.main import main\nmain()"
        command = [sys.executable, "-c", script, *(str(arg) for arg in args)]
        return subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=50, check=False
        )

    return run


@pytest.fixture
def latent(tmp_path: Path, tiny_detector: Callable[..., object], narrow: None) -> Path:
    """A latent checkpoint at 2 bits; while the test runs, detectors are narrow."""
    from qmdd.calibration.train import save_detector

    path = tmp_path / "latent.safetensors"
    save_detector(tiny_detector(), path, {"recipe": "{}"})
    return path
