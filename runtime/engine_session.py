"""A bundle's engine in TensorRT, on the device's GPU: raw pixels in, logits out.

Documented, not run: no machine of this project has a GPU. Its tests drive it against stand-ins for
TensorRT and CUDA; whether real ones agree is the device's to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .cuda import Cuda
from .engine import check_engine, engine_path, read_record, this_machine
from .engine_context import EngineContext
from .errors import SessionError
from .session import Array, Session
from .tensorrt_api import load_tensorrt

U8 = npt.NDArray[np.uint8]


class EngineSession(Session):
    """A :class:`~.session.Session` of TensorRT.

    It holds memory of the GPU; :meth:`close` gives it back, as does leaving a ``with`` block.

    Args:
        bundle: an opened bundle that holds an engine.
        outputs: that :meth:`run` fetches; default: all.
        cuda, api: the CUDA runtime and TensorRT's module; default: this machine's.

    Raises:
        EngineError: no engine, or one for another TensorRT, GPU or system (nothing was loaded
            then); or TensorRT is not installed.
        SessionError: TensorRT does not take the engine, or has no memory for it.
        BundleError: the engine has changed since the bundle was opened.
    """

    reads_onnx = False

    def __init__(
        self,
        bundle: Bundle,
        *,
        outputs: list[str] | None = None,
        cuda: Any = None,
        api: Any = None,
    ) -> None:
        record = read_record(bundle)
        api = api or load_tensorrt(record.backend)
        cuda = cuda or Cuda()
        check_engine(bundle, this_machine(record.backend, api=api, cuda=cuda))
        path = engine_path(bundle)
        data = bundle.read(path.relative_to(bundle.path).as_posix())
        self._open(path, data, record.profile, outputs, cuda, api)

    @classmethod
    def of_file(
        cls,
        path: Path,
        profile: Mapping[str, Sequence[int]],
        backend: str,
        *,
        outputs: list[str] | None = None,
    ) -> EngineSession:
        """A session over an engine that this machine just built, in no bundle.

        Args:
            path: the engine.
            profile: ``min`` and ``max`` shape of the input that it was built for.
            backend: ``tensorrt`` or ``tensorrt_rtx``.
            outputs: that :meth:`run` fetches; default: all.

        Raises:
            EngineError, SessionError: as for a bundle.
        """
        session = cls.__new__(cls)
        session._open(path, path.read_bytes(), profile, outputs, Cuda(), load_tensorrt(backend))
        return session

    def _open(
        self,
        path: Path,
        data: bytes,
        profile: Mapping[str, Sequence[int]],
        outputs: list[str] | None,
        cuda: Any,
        api: Any,
    ) -> None:
        super().__init__(path, None)
        self._low, self._high = profile["min"], profile["max"]
        self._context = EngineContext(self._name, data, self._high, cuda=cuda, api=api)
        try:
            self.outputs = self._choose(list(self._context.outputs), outputs)
        except SessionError:
            self.close()
            raise

    def run(self, images: U8) -> dict[str, Array]:
        """Arrays of the chosen outputs, by name, for ``images`` uint8 ``[N, 3, H, W]``.

        Raises:
            SessionError: ``images`` is something else or of a size that the engine was not built
                for; or TensorRT fails.
        """
        if self._context.closed:
            raise SessionError(f"{self._name}: the session is closed")
        if images.ndim == 4 and not self.takes(images.shape):
            raise SessionError(
                f"{self._name}: was built for {list(self._low)} to {list(self._high)}, not "
                f"{list(images.shape)}; build it with another --batch or --side"
            )
        return super().run(images)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether the engine was built for images of ``shape``, ``[N, 3, H, W]``."""
        spans = zip(self._low, shape, self._high, strict=True)
        return all(low <= size <= high for low, size, high in spans)

    def _fetch(self, images: U8) -> list[Array]:
        return self._context.run(images, self.outputs)

    def close(self) -> None:
        """Give the GPU's memory back; a second call does nothing."""
        self._context.close()
