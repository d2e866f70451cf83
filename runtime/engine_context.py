"""One execution context over an engine: an array in, named arrays out, with the GPU's memory.

It follows TensorRT's API of named tensors, which is the same from 8.5 to 11 and in RTX.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import EngineError, SessionError

U8 = npt.NDArray[np.uint8]
Array = npt.NDArray[np.generic]

INPUT = "image"
#: TensorRT's names of element types, and numpy's.
KINDS: dict[str, type[np.generic]] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class EngineContext:
    """An engine that is ready to run.

    Args:
        name: what messages call it.
        data: the engine's bytes.
        most: the largest shape of ``image``, ``[N, 3, H, W]``; memory is taken for it once.
        cuda, api: the CUDA runtime and TensorRT's module.

    Raises:
        SessionError: TensorRT does not take the engine, it is no detector of ours, or the GPU has
            no memory for it; nothing is held then.

    Attributes:
        outputs: names of what it computes, in the engine's order.
    """

    def __init__(self, name: str, data: bytes, most: Sequence[int], *, cuda: Any, api: Any) -> None:
        self._name, self._cuda = name, cuda
        logger = api.Logger(api.Logger.ERROR)
        # The engine needs its runtime for as long as it lives.
        self._runtime = api.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise SessionError(f"{name}: TensorRT does not load it; run qmdd build again")
        found = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        if INPUT not in found or "logit" not in found:
            raise SessionError(f"{name}: has tensors {', '.join(found)}, not image and logit")
        self.outputs = tuple(tensor for tensor in found if tensor != INPUT)
        self._kinds = {tensor: self._kind(tensor) for tensor in self.outputs}
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise SessionError(f"{name}: TensorRT gives no context; free some GPU memory")
        self._buffers: dict[str, int] = {}
        self._stream = 0
        try:
            self._stream = cuda.stream()
            self._allocate(most)
        except (EngineError, SessionError) as error:
            self.close()
            if isinstance(error, SessionError):
                raise
            raise SessionError(f"{name}: {error}") from error

    def _kind(self, tensor: str) -> np.dtype[np.generic]:
        told = str(self._engine.get_tensor_dtype(tensor)).rpartition(".")[2]
        if told not in KINDS:
            raise SessionError(f"{self._name}: its output {tensor} has type {told}, none of ours")
        return np.dtype(KINDS[told])

    def _allocate(self, most: Sequence[int]) -> None:
        """Memory for the largest input and what it makes: no output of ours shrinks with it."""
        self._take(most)
        sizes = {INPUT: math.prod(most)}
        for tensor in self.outputs:
            sizes[tensor] = math.prod(self._shape(tensor)) * self._kinds[tensor].itemsize
        for tensor, size in sizes.items():
            self._buffers[tensor] = self._cuda.allocate(size)
            self._context.set_tensor_address(tensor, self._buffers[tensor])

    def _take(self, shape: Sequence[int]) -> None:
        if not self._context.set_input_shape(INPUT, tuple(shape)):
            raise SessionError(f"{self._name}: TensorRT does not take {list(shape)}")

    def _shape(self, tensor: str) -> tuple[int, ...]:
        shape = tuple(int(side) for side in self._context.get_tensor_shape(tensor))
        if min(shape, default=0) < 0:
            raise SessionError(f"{self._name}: no shape of {tensor} for such images")
        return shape

    @property
    def closed(self) -> bool:
        """Whether its memory was given back."""
        return not self._buffers

    def run(self, images: U8, fetched: Sequence[str]) -> list[Array]:
        """The outputs ``fetched`` for contiguous ``images`` uint8 ``[N, 3, H, W]``.

        Raises:
            SessionError: TensorRT fails. EngineError: CUDA does.
        """
        source = images.ctypes.data
        self._cuda.to_device(self._buffers[INPUT], source, images.nbytes, self._stream)
        self._take(images.shape)
        if not self._context.execute_async_v3(self._stream):
            raise SessionError(f"{self._name}: TensorRT fails on {list(images.shape)}")
        found: list[Array] = []
        for tensor in fetched:
            held = np.empty(self._shape(tensor), dtype=self._kinds[tensor])
            place = self._buffers[tensor]
            self._cuda.to_host(held.ctypes.data, place, held.nbytes, self._stream)
            found.append(held)
        self._cuda.wait(self._stream)
        return found

    def close(self) -> None:
        """Give the GPU's memory back; a second call does nothing."""
        for address in self._buffers.values():
            self._cuda.free(address)
        if self._stream:
            self._cuda.close_stream(self._stream)
        self._buffers, self._stream = {}, 0
