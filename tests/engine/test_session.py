"""The session, driven against a stand-in for TensorRT and CUDA.

The stand-in keeps "device" memory in Python and computes the mean of the pixels. It shows that
buffers, shapes and errors are handled as the session says; not that TensorRT agrees.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qmdd.runtime import Bundle, EngineSession
from qmdd.runtime.errors import EngineError, SessionError


class Gpu:
    """Memory by address."""

    def __init__(self, free: int = 1 << 20) -> None:
        self.held: dict[int, Any] = {}
        self.left = free
        self.streams = 0

    def compute_capability(self) -> str:
        return "8.7"

    def stream(self) -> int:
        self.streams += 1
        return 7

    def close_stream(self, stream: int) -> None:
        assert stream == 7
        self.streams -= 1

    def allocate(self, count: int) -> int:
        if count > self.left:
            raise EngineError("CUDA: out of memory (cudaMalloc, error 2)")
        block = ctypes.create_string_buffer(count)
        self.held[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.held[address]

    def to_device(self, address: int, source: int, count: int, stream: int) -> None:
        assert count <= len(self.held[address])
        ctypes.memmove(address, source, count)

    def to_host(self, target: int, address: int, count: int, stream: int) -> None:
        ctypes.memmove(target, address, count)

    def wait(self, stream: int) -> None:
        pass


class Context:
    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.works = True

    def set_tensor_address(self, name: str, address: int) -> None:
        self.places[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "image"
        self.shape = shape
        return shape[2] != 34  # a stride that the stand-in does not take

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "logit"
        return self.shape[:1]

    def execute_async_v3(self, stream: int) -> bool:
        pixels = (ctypes.c_uint8 * int(np.prod(self.shape))).from_address(self.places["image"])
        means = np.frombuffer(pixels, dtype=np.uint8).reshape(self.shape).mean((1, 2, 3))
        ctypes.memmove(self.places["logit"], means.astype(np.float32).tobytes(), 4 * len(means))
        return self.works


def tensorrt(context: Context | None, *, names: tuple[str, ...] = ("image", "logit")) -> Any:
    """A module with one engine, whose bytes are ``engine``."""

    def deserialize(data: bytes) -> Any:
        return SimpleNamespace(
            create_execution_context=lambda: context,
            num_io_tensors=len(names),
            get_tensor_name=lambda index: names[index],
            get_tensor_dtype=lambda name: "DataType.FLOAT",
        ) if data == b"engine" else None  # fmt: skip

    runtime = SimpleNamespace(deserialize_cuda_engine=deserialize)
    return SimpleNamespace(
        __version__="10.3.0",
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
        Runtime=lambda _logger: runtime,
    )


@pytest.fixture
def bundle(make_bundle, add_engine, monkeypatch) -> Bundle:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    return Bundle.open(add_engine(make_bundle()))


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def test_logits_of_several_shapes(bundle) -> None:
    with EngineSession(bundle, cuda=Gpu(), api=tensorrt(Context())) as session:
        for shape in ((1, 3, 32, 64), (2, 3, 64, 64), (1, 3, 48, 32)):
            images = _images(*shape)
            found = session.logits(images[:, :, ::-1])  # not contiguous
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, images.mean((1, 2, 3)), rtol=1e-6)
        assert session.outputs == ("logit",)
        assert session.run(images)["logit"].shape == (1,)


def test_memory_is_given_back(bundle) -> None:
    gpu = Gpu()
    with EngineSession(bundle, cuda=gpu, api=tensorrt(Context())) as session:
        assert sorted(len(block) for block in gpu.held.values()) == [8, 2 * 3 * 64 * 64]
    session.close()
    assert gpu.held == {}
    assert gpu.streams == 0
    with pytest.raises(SessionError, match="the session is closed"):
        session.logits(_images(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), r"must be uint8 .* got float32 \[1, 3, 32, 32\]"),
        (np.zeros((3, 32, 32), np.uint8), "must be uint8"),
        (_images(3, 3, 32, 32), r"built for \[1, 3, 32, 32\] to \[2, 3, 64, 64\], not \[3, 3,"),
        (_images(1, 3, 30, 32), "build it with another --batch or --side"),
        (_images(1, 1, 32, 32), "was built for"),
        (_images(1, 3, 34, 32), "TensorRT does not take"),
    ],
)
def test_images_that_do_not_fit(bundle, images: np.ndarray, said: str) -> None:
    with (
        EngineSession(bundle, cuda=Gpu(), api=tensorrt(Context())) as session,
        pytest.raises(SessionError, match=said),
    ):
        session.logits(images)


def test_failure_of_tensorrt(bundle) -> None:
    context = Context()
    context.works = False
    with (
        EngineSession(bundle, cuda=Gpu(), api=tensorrt(context)) as session,
        pytest.raises(SessionError, match="TensorRT fails on"),
    ):
        session.logits(_images(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("api", "said"),
    [
        (tensorrt(None), "gives no context"),
        (tensorrt(Context(), names=("x", "logit")), "has tensors x, logit, not image and logit"),
    ],
)
def test_engine_that_tensorrt_does_not_take(bundle, api: Any, said: str) -> None:
    with pytest.raises(SessionError, match=said):
        EngineSession(bundle, cuda=Gpu(), api=api)


def test_gpu_without_memory_for_the_buffers(bundle) -> None:
    gpu = Gpu(free=100)
    with pytest.raises(SessionError, match="out of memory"):
        EngineSession(bundle, cuda=gpu, api=tensorrt(Context()))
    assert gpu.held == {}
    assert gpu.streams == 0


def test_engine_of_another_version_is_not_loaded(bundle) -> None:
    api = tensorrt(Context())
    api.__version__ = "10.7.0"

    def load(_logger: object) -> Any:
        raise AssertionError("was loaded")

    api.Runtime = load
    with pytest.raises(EngineError, match=r"by version 10\.3\.0, and this machine has 10\.7\.0"):
        EngineSession(bundle, cuda=Gpu(), api=api)


def test_real_engine_where_no_gpu_is(rtx, make_bundle) -> None:
    """Only on such a machine; elsewhere the engine's own test is the device's."""
    from qmdd.exporter.engine.build import build_engine
    from qmdd.runtime.cuda import Cuda

    try:
        Cuda()
    except EngineError:
        folder = make_bundle()
        build_engine(folder)
        with pytest.raises(EngineError, match="CUDA"):
            EngineSession(Bundle.open(folder))
    else:
        pytest.skip("this machine has a GPU")
