"""Other versions of packages, each in a folder that comes before the environment's own packages.

One package at a time is put in place of the tested one (``pip install --target``), so that what
fails is that version's doing. The oldest ones that pyproject.toml claims are also put together.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

#: Tried of ONNX Runtime: the oldest that is claimed, and the first of each later minor version.
ONNXRUNTIMES = (
    "1.23.0", "1.24.1", "1.25.0", "1.26.0", "1.27.0", "1.28.0", "1.29.0", "1.30.0", "1.31.0",
    "1.32.0",
)  # fmt: skip
#: Likewise of onnx, which writes the models.
ONNXES = ("1.20.0", "1.21.0", "1.22.0", "1.23.0", "1.23.2")
#: The oldest of everything that bundles are run with.
OLDEST_RUNTIME = {
    "onnxruntime": "1.23.0",
    "numpy": "1.26.0",
    "pillow": "10.3.0",
    "safetensors": "0.5.0",
    "click": "8.2.0",
    "rich": "13.0.0",
}
#: The oldest of what exports, but torch, which is too large to be had in two versions.
OLDEST_EXPORT = {
    "onnx": "1.20.0",
    "onnxscript": "0.6.0",
    "onnx-graphsurgeon": "0.6.1",
    "ml-dtypes": "0.5.0",
}


class EnvironmentFailure(Exception):
    """Packages cannot be had; the text is pip's."""


def overlay(folder: Path, packages: dict[str, str]) -> Path:
    """A folder of these versions below ``folder``; made once.

    Raises:
        EnvironmentFailure: pip says no.
    """
    name = "-".join(f"{package}{version}" for package, version in packages.items())
    place = folder / name
    if (place / "whole").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    wanted = [f"{package}=={version}" for package, version in packages.items()]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "--target", str(place), *wanted],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip failed"]
        raise EnvironmentFailure(lines[-1])
    (place / "whole").touch()
    return place


def variables(place: Path | None, **more: str) -> dict[str, str]:
    """The environment variables of a process that sees an overlay, if one is given."""
    known = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    root = str(Path(__file__).parents[2])
    known["PYTHONPATH"] = os.pathsep.join([*([str(place)] if place else []), root])
    return known
