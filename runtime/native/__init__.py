"""Our own operators for ONNX Runtime: a library in C++ beside this file, where it was built.

Installing qmdd builds it where a C++ compiler is (CMakeLists.txt, setup.py); without it, bundles
for CPUs run their portable model instead. Nothing here loads ONNX Runtime.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SessionError

if TYPE_CHECKING:
    import ctypes

#: The library's file, beside this one.
LIBRARY = "qmdd_native.so"
#: Environment variable that names the kernels to use instead of the fastest, such as ``scalar``.
KERNELS_VARIABLE = "QMDD_KERNELS"
_ABSENT = (
    "the native operators are not built in this installation; install qmdd from source where a C++ "
    "compiler is"
)


def library_path() -> Path | None:
    """The library, or ``None`` where it was not built."""
    path = Path(__file__).parent / LIBRARY
    return path if path.is_file() else None


def require_library() -> Path:
    """The library.

    Raises:
        SessionError: it was not built.
    """
    path = library_path()
    if path is None:
        raise SessionError(f"{_ABSENT}, or choose --runtime onnxruntime")
    return path


def why_absent() -> str:
    """One line that says what is missing; empty where nothing is."""
    return "" if library_path() else _ABSENT


def kernels() -> tuple[str, ...]:
    """Names of the kernels that this processor can run, the fastest first.

    Raises:
        SessionError: the library was not built, or cannot be loaded.
    """
    return tuple(_loaded().qmdd_kernels().decode().split(","))


def chosen_kernels() -> str:
    """Name of the kernels that sessions of this process use.

    Raises:
        SessionError: as :func:`kernels`; or :data:`KERNELS_VARIABLE` names none of them.
    """
    known, asked = kernels(), os.environ.get(KERNELS_VARIABLE, "")
    if asked and asked not in known:
        raise SessionError(
            f"{KERNELS_VARIABLE}={asked}: this processor runs {', '.join(known)}; name one of them"
        )
    return asked or known[0]


def peak(name: str, rounds: int) -> int:
    """Let kernels multiply and add ``rounds`` times over, operands in registers, on this thread.

    Returns:
        The number of multiply-adds that this was: over the seconds that it took, the rate that no
        matrix product of these instructions can pass.

    Raises:
        SessionError: as :func:`kernels`; or this processor cannot run these.
    """
    done = int(_loaded().qmdd_peak(name.encode(), rounds))
    if done < 0:
        raise SessionError(f"this processor cannot run the kernels {name!r}")
    return done


@functools.cache
def _loaded() -> ctypes.CDLL:
    import ctypes

    path = require_library()
    try:
        library = ctypes.CDLL(str(path))
        library.qmdd_kernels.restype = ctypes.c_char_p
        library.qmdd_peak.restype = ctypes.c_int64
        library.qmdd_peak.argtypes = [ctypes.c_char_p, ctypes.c_int64]
    except (OSError, AttributeError) as error:
        raise SessionError(f"{path}: cannot be loaded: {error}; install qmdd again") from error
    return library
