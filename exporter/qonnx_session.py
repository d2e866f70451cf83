"""A QONNX model executed by the ``qonnx`` package, node by node: the reference for FPGA flows."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.errors import SessionError, not_installed
from ..runtime.session import U8, Array, Session, one_line
from .passes.qonnx_operators import DOMAIN
from .qonnx_model import fix_shapes

_ADVICE = "it needs Python 3.11 or newer; qmdd export --no-verify writes the file without it"


def require_qonnx() -> None:
    """Refuse early where the package is missing: :class:`SessionError` says what to install."""
    try:
        import_module("qonnx")
    except ImportError as error:
        raise SessionError(f"{not_installed('qonnx', 'qonnx')} ({_ADVICE})") from error


class QonnxSession(Session):
    """A :class:`~..runtime.session.Session` of ``qonnx``.

    Codes come out as codes: where an operator's ``out_bias`` makes ``code - zero`` of them, it is
    taken away again.

    Args:
        model: the ONNX file, or its bytes.
        outputs: names of tensors, outputs or not, that :meth:`run` fetches; default: ``logit``.

    Raises:
        SessionError: qonnx is missing, or the model cannot be read.
    """

    def __init__(self, model: bytes | Path, *, outputs: list[str] | None = None) -> None:
        require_qonnx()
        super().__init__(model, None)
        import onnx

        try:
            self._model = (
                onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
            )
        except Exception as error:
            raise SessionError(f"{self._name}: cannot be loaded: {one_line(error)}") from error
        self.outputs = tuple(outputs or ["logit"])
        self._biases = {
            node.output[0]: attribute.f
            for node in self._model.graph.node
            if node.op_type == "MultiThreshold" and node.domain == DOMAIN
            for attribute in node.attribute
            if attribute.name == "out_bias"
        }
        self._shape: tuple[int, ...] = ()
        self._wrapped: Any = None

    def _fetch(self, images: U8) -> list[Array]:
        execute: Any = import_module("qonnx.core.onnx_exec").execute_onnx
        if images.shape != self._shape:
            self._wrapped = self._wrap(images)
            self._shape = images.shape
        found = execute(self._wrapped, {"image": images.astype(np.float32)}, True)
        return [
            np.asarray(found[name] - np.float32(self._biases.get(name, 0)), dtype=np.float32)
            for name in self.outputs
        ]

    def _wrap(self, images: U8) -> Any:
        wrapper: Any = import_module("qonnx.core.modelwrapper").ModelWrapper
        count, colors, height, width = images.shape
        fixed = type(self._model)()
        fixed.CopyFrom(self._model)
        fix_shapes(fixed, (count, colors, height, width))
        return wrapper(fixed)
