"""ONNX models that are read back from a bundle: whoever made it may have meant harm.

The readers of graphs here expect what the exporter writes. Of anything else they may raise
anything; what would make them run in circles is refused beforehand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import BundleError, RuntimeFailure
from ..runtime.onnx_limits import check_model
from ..runtime.session import one_line
from .errors import ExportError

if TYPE_CHECKING:
    import onnx


def model_of_file(path: Path) -> onnx.ModelProto:
    """The model in the file ``path``, as :func:`model_of`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    return model_of(data, path)


def model_of(data: bytes, path: Path) -> onnx.ModelProto:
    """The model in ``data``, the bytes of ``path``; each tensor is made before it is read.

    Raises:
        ExportError: it cannot be read, :mod:`~..runtime.onnx_limits` refuses it, or its graph is
            none that can run.
    """
    import onnx

    try:
        check_model(data, str(path))
    except BundleError as error:
        raise ExportError(str(error)) from error
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf raises errors of its own, and ships no types
        raise ExportError(f"{path}: not a readable ONNX model ({one_line(error)})") from error
    _check_order(path, model)
    return model


def _check_order(path: Path, model: onnx.ModelProto) -> None:
    known = {tensor.name for tensor in (*model.graph.input, *model.graph.initializer)} | {""}
    for node in model.graph.node:
        if not known.issuperset(node.input) or not known.isdisjoint(filter(None, node.output)):
            raise ExportError(
                f"{path}: {node.name[:80] or node.op_type[:80]}: its graph is out of order; export "
                "the checkpoint anew"
            )
        known.update(node.output)


@contextlib.contextmanager
def of_ours(path: Path) -> Iterator[None]:
    """Whatever fails while the graph of ``path`` is looked at is an :class:`ExportError`."""
    try:
        yield
    except ExportError as error:
        text = str(error)
        raise ExportError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except (RuntimeFailure, ImportError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ExportError(
            f"{path}: no model of ours ({type(error).__name__}: {one_line(error)}); export the "
            "checkpoint anew"
        ) from error
