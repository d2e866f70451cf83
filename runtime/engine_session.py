"""A bundle's engine in TensorRT, on the device's GPU: raw pixels in, logits out.

Documented, not run: it follows TensorRT's API (named tensors, ``execute_async_v3``, the same from
8.5 to 11 and in RTX), and no machine of this project has a GPU. Its tests drive it against a small
stand-in for that API; whether a real one agrees is the device's to show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .cuda import Cuda
from .engine import check_engine, engine_path, read_record, this_machine
from .errors import EngineError, SessionError
from .tensorrt_api import load_tensorrt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_INPUT, _OUTPUT = "image", "logit"


class EngineSession:
    """One execution context over an engine; the interface of :class:`~.session.OnnxSession`.

    It holds memory of the GPU; :meth:`close` gives it back, as does leaving a ``with`` block.

    Args:
        bundle: an opened bundle that holds an engine.
        cuda, api: the CUDA runtime and TensorRT's module; default: this machine's.

    Raises:
        EngineError: no engine, or one for another TensorRT, GPU or system (nothing was loaded
            then); or TensorRT is not installed.
        SessionError: TensorRT does not take the engine, or has no memory for it.
    """

    #: An engine computes every output in one go, and ours has one.
    outputs = (_OUTPUT,)

    def __init__(self, bundle: Bundle, *, cuda: Any = None, api: Any = None) -> None:
        record = read_record(bundle)
        self._name = str(engine_path(bundle))
        self._api = api or load_tensorrt(record.backend)
        self._cuda = cuda or Cuda()
        machine = this_machine(record.backend, api=self._api, cuda=self._cuda)
        check_engine(bundle, machine)
        self._low, self._high = record.profile["min"], record.profile["max"]
        self._engine = self._load(engine_path(bundle))
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise SessionError(f"{self._name}: TensorRT gives no context; free some GPU memory")
        self._stream = self._cuda.stream()
        self._buffers: dict[str, int] = {}
        try:
            pixels, count = int(np.prod(self._high)), self._high[0]
            for name, size in ((_INPUT, pixels), (_OUTPUT, 4 * count)):
                self._buffers[name] = self._cuda.allocate(size)
                self._context.set_tensor_address(name, self._buffers[name])
        except EngineError as error:
            self.close()
            raise SessionError(f"{self._name}: {error}") from error

    def _load(self, path: Path) -> Any:
        logger = self._api.Logger(self._api.Logger.ERROR)
        # The engine needs its runtime for as long as it lives.
        self._runtime = self._api.Runtime(logger)
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise SessionError(f"{self._name}: TensorRT does not load it; run qmdd build again")
        found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        if sorted(found) != [_INPUT, _OUTPUT]:
            raise SessionError(f"{self._name}: has tensors {', '.join(found)}, not image and logit")
        return engine

    def run(self, images: U8) -> dict[str, F32]:
        """The logits by name, for ``images`` uint8 ``[N, 3, H, W]``.

        Raises:
            SessionError: ``images`` is something else or of a size that the engine was not built
                for; or TensorRT fails.
        """
        return {_OUTPUT: self.logits(images)}

    def logits(self, images: U8) -> F32:
        """Logits float32 ``[N]`` of ``images`` uint8 ``[N, 3, H, W]``; positive leans to fake.

        Raises:
            SessionError: as :meth:`run`.
        """
        self._check(images)
        held = np.ascontiguousarray(images)
        found = np.empty(len(held), dtype=np.float32)
        try:
            self._cuda.to_device(self._buffers[_INPUT], held.ctypes.data, held.nbytes, self._stream)
            if not self._context.set_input_shape(_INPUT, held.shape):
                raise SessionError(f"{self._name}: TensorRT does not take {list(held.shape)}")
            if not self._context.execute_async_v3(self._stream):
                raise SessionError(f"{self._name}: TensorRT fails on {list(held.shape)}")
            source = self._buffers[_OUTPUT]
            self._cuda.to_host(found.ctypes.data, source, found.nbytes, self._stream)
            self._cuda.wait(self._stream)
        except EngineError as error:
            raise SessionError(f"{self._name}: {error}") from error
        return found

    def _check(self, images: U8) -> None:
        if not self._buffers:
            raise SessionError(f"{self._name}: the session is closed")
        if images.dtype != np.uint8 or images.ndim != 4:
            raise SessionError(
                "images must be uint8 [count, 3, height, width], got "
                f"{images.dtype} {list(images.shape)}"
            )
        for low, size, high in zip(self._low, images.shape, self._high, strict=True):
            if not low <= size <= high:
                raise SessionError(
                    f"{self._name}: was built for {list(self._low)} to {list(self._high)}, not "
                    f"{list(images.shape)}; build it with another --batch or --side"
                )

    def close(self) -> None:
        """Give the GPU's memory back; a second call does nothing."""
        for address in self._buffers.values():
            self._cuda.free(address)
        if self._stream:
            self._cuda.close_stream(self._stream)
        self._buffers, self._stream = {}, 0

    def __enter__(self) -> EngineSession:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()
