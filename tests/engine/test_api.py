"""Libraries that are or are not there: what is said, and what is to be done."""

from __future__ import annotations

import ctypes
import sys

import pytest

from qmdd.runtime import cuda, tensorrt_api
from qmdd.runtime.errors import EngineError
from qmdd.runtime.tensorrt_api import load_tensorrt, version_of


def test_tensorrt_proper_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"apt install python3-libnvinfer.*--system-site-packag"):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize("package", [library[0] for library in tensorrt_api.RTX_LIBRARIES])
def test_a_wheel_of_rtx_is_missing(monkeypatch, package: str) -> None:
    def find(name: str) -> object:
        return None if name == package else original(name)

    original = tensorrt_api.find_spec
    monkeypatch.setattr(tensorrt_api, "find_spec", find)
    with pytest.raises(EngineError, match=r"pip install 'qmdd\[rtx\]'"):
        load_tensorrt("tensorrt_rtx")


def test_library_that_does_not_load(rtx, monkeypatch) -> None:
    def fail(_path: str, mode: int) -> None:
        raise OSError("libcudart.so.13: invalid ELF header")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    with pytest.raises(EngineError, match=r"installed but cannot be loaded: libcudart.so.13: inv"):
        load_tensorrt("tensorrt_rtx")


def test_no_such_backend() -> None:
    with pytest.raises(EngineError, match="no backend 'tvm'; there are tensorrt, tensorrt_rtx"):
        load_tensorrt("tvm")


@pytest.mark.parametrize(
    ("text", "numbers"), [("10.3.0.post1", (10, 3, 0)), ("8.5.2.2", (8, 5, 2, 2)), ("11", (11,))]
)
def test_version(text: str, numbers: tuple[int, ...]) -> None:
    assert version_of(text) == numbers


def test_version_that_is_none() -> None:
    with pytest.raises(EngineError, match="'latest' is no version"):
        version_of("latest")


def test_no_cuda_library(monkeypatch) -> None:
    def fail(_name: str) -> None:
        raise OSError("not found")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    with pytest.raises(EngineError, match=r"no CUDA runtime library.*cuda-cudart"):
        cuda.Cuda()


def test_real_cuda_library_tells_its_own_words(rtx) -> None:
    """Without a driver its first call fails; with one there is a device to ask."""
    try:
        device = cuda.Cuda()
    except EngineError as error:
        assert "CUDA" in str(error)  # noqa: PT017 - either is right, by the machine
    else:
        assert device.compute_capability().count(".") == 1
