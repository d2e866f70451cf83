"""The environment of a "device" with TensorRT and a GPU, both stand-ins, for whole commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent


def device_environment(folder: Path, base: dict[str, str] | None = None) -> dict[str, str] | None:
    """Environment variables for processes on the device; ``None`` where no C compiler is.

    Args:
        folder: an existing one, for the stand-in of CUDA's library.
        base: the variables to add to; default: this process's.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "libcudart.so"
    source = str(_HERE / "cudart.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), source], check=True)
    found = dict(os.environ if base is None else base)
    for name, place in (("PYTHONPATH", _HERE), ("LD_LIBRARY_PATH", folder)):
        found[name] = os.pathsep.join([str(place), *filter(None, [found.get(name)])])
    return found
