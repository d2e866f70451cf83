"""The little of the CUDA runtime that a session needs, by ctypes: no package beyond JetPack's.

Source: CUDA Runtime API, modules Device, Memory and Stream Management.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

from .errors import EngineError

#: The library's names, newest first; the first that the loader finds is taken.
LIBRARIES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
#: Where JetPack puts it without telling the loader, and the wheel's place.
PLACES = ("/usr/local/cuda/lib64/libcudart.so",)
WHEEL = "cu13/lib/libcudart.so.13"

_COMPUTE_MAJOR, _COMPUTE_MINOR = 75, 76
_TO_DEVICE, _TO_HOST = 1, 2


class Cuda:
    """CUDA device 0.

    Raises:
        EngineError: no CUDA runtime library, no driver, or no device; with CUDA's own words.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int()
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        if not count.value:
            raise EngineError("CUDA finds no GPU on this machine")

    def compute_capability(self) -> str:
        """Of the device, such as ``8.7``."""
        numbers = []
        for attribute in (_COMPUTE_MAJOR, _COMPUTE_MINOR):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            numbers.append(str(value.value))
        return ".".join(numbers)

    def driver_version(self) -> str:
        """The newest CUDA that the driver serves, such as ``12.6``."""
        value = ctypes.c_int()
        self._call("cudaDriverGetVersion", ctypes.byref(value))
        return f"{value.value // 1000}.{value.value % 1000 // 10}"

    def stream(self) -> int:
        """A new stream's handle."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value or 0

    def allocate(self, count: int) -> int:
        """The address of ``count`` fresh bytes on the device."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(count))
        return address.value or 0

    def free(self, address: int) -> None:
        """Give back what :meth:`allocate` gave."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def to_device(self, address: int, source: int, count: int, stream: int) -> None:
        """Copy ``count`` bytes from host address ``source``, in order on ``stream``."""
        self._copy(address, source, count, _TO_DEVICE, stream)

    def to_host(self, target: int, address: int, count: int, stream: int) -> None:
        """Copy ``count`` bytes to host address ``target``, in order on ``stream``."""
        self._copy(target, address, count, _TO_HOST, stream)

    def wait(self, stream: int) -> None:
        """Return when all work on ``stream`` is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def close_stream(self, stream: int) -> None:
        """Give back what :meth:`stream` gave."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def _copy(self, target: int, source: int, count: int, kind: int, stream: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(count),
            kind,
            ctypes.c_void_p(stream),
        )

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            said = self._library.cudaGetErrorString(code).decode(errors="replace")
            raise EngineError(f"CUDA: {said} ({name}, error {code})")


def _load() -> ctypes.CDLL:
    places = list(LIBRARIES)
    places += [place for place in PLACES if Path(place).is_file()]
    wheel = find_spec("nvidia")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        if (Path(folder) / WHEEL).is_file():
            places.append(str(Path(folder) / WHEEL))
    for place in places:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise EngineError(
        "no CUDA runtime library (libcudart.so) on this machine; on a Jetson install JetPack's "
        "cuda-cudart, elsewhere: pip install nvidia-cuda-runtime"
    )
