"""TensorRT's Python API, from whichever of its two editions is asked for.

* ``tensorrt``: JetPack's, or a workstation's. On a Jetson it belongs to the system's Python, so an
  environment sees it only if it was made with ``--system-site-packages``.
* ``tensorrt_rtx``: three wheels of PyPI (``pip install 'qmdd[rtx]'``). Their libraries do not name
  where the others are: they are loaded here, in order, before the bindings.
"""

from __future__ import annotations

import ctypes
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import EngineError, not_installed

BACKENDS = ("tensorrt", "tensorrt_rtx")

#: Package that holds a library of TensorRT-RTX, and the library's place in it, in load order.
RTX_LIBRARIES = (
    ("nvidia", "cu13/lib/libcudart.so.13"),
    ("tensorrt_rtx_libs", "libtensorrt_rtx.so.1"),
    ("tensorrt_rtx_libs", "libtensorrt_onnxparser_rtx.so.1"),
)

_MISSING = {
    "tensorrt": (
        "TensorRT is not installed for this Python; on a Jetson it comes with JetPack for the "
        "system's Python: sudo apt install python3-libnvinfer, then make the environment with: "
        "python3 -m venv --system-site-packages"
    ),
    "tensorrt_rtx": not_installed("TensorRT-RTX", "rtx"),
}


def load_tensorrt(backend: str) -> Any:
    """The module of ``backend`` (it ships no types).

    Raises:
        EngineError: it is not installed, with what to do; or one of its libraries cannot be loaded.
    """
    if backend not in BACKENDS:
        raise EngineError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    name = "tensorrt"
    try:
        if backend == "tensorrt_rtx":
            name = "tensorrt_rtx_bindings"
            for package, place in RTX_LIBRARIES:
                ctypes.CDLL(str(_library(package, place)), mode=ctypes.RTLD_GLOBAL)
        return import_module(name)
    except ModuleNotFoundError as error:
        raise EngineError(_MISSING[backend]) from error
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"{backend} is installed but cannot be loaded: {reason}") from error


def _library(package: str, place: str) -> Path:
    found = find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        if (Path(folder) / place).is_file():
            return Path(folder) / place
    raise ModuleNotFoundError(f"{package}/{place}", name=package)


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of a version: ``10.3.0.post1`` gives ``(10, 3, 0)``.

    Raises:
        EngineError: it does not begin with a number.
    """
    found = re.match(r"\d+(\.\d+)*", text)
    if found is None:
        raise EngineError(f"{text!r} is no version of TensorRT")
    return tuple(int(part) for part in found[0].split("."))
