"""Packed integer weights, taken apart as bytes: what folds when a session loads folds fast.

An index of 1, 2, 4 or 8 bits (3 bits: 2 + 1) is stored several to a byte, or in a constant of its
own width as in :mod:`.pack_weights`. Taken apart by shifts and masks of bytes, and turned into a
code by one product and one sum of bytes, it becomes INT8 with nothing four bytes wide between::

    bytes [1, n] -> BitShift [lanes, 1] -> BitwiseAnd -> Cast(INT8) -> Mul(stride) -> Add(first)

Byte ``j`` holds values ``j``, ``n + j``, ``2 n + j``, ..: one lane of all bytes is a stretch of the
result, and the loops are long. INT8 wraps around where INT32 would not; what comes out is within.

Guarantees: an INT8 tensor of constants alone.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ...models.packing import pack_plane
from .base import insert, shared_constant
from .codebook import Codebook
from .pack_weights import MIN_OPSET, Plan, note_packed, width_of

_UINT8, _INT8 = 2, 3  # TensorProto data types


def index_bytes(graph: gs.Graph, plan: Plan, codes: np.ndarray, book: Codebook) -> gs.Tensor:
    """Indices of ``codes`` in ``book``, UINT8, from constants of the plan's width."""
    name = f"{plan.layer}.index"
    index = ((codes - book.first) // book.stride).astype(np.uint8)
    width = width_of(plan, book)
    if width != 3:
        return _plane(graph, name, index, width, plan)
    low = _plane(graph, f"{name}.low", index & np.uint8(3), 2, plan)
    high = _plane(graph, f"{name}.high", index >> np.uint8(2), 1, plan)
    four = shared_constant(graph, "four.byte", np.array(4, dtype=np.uint8))
    shifted = insert(graph, "Mul", f"{name}.high.shifted", [high, four])
    return insert(graph, "Add", name, [low, shifted])


def codes_of(graph: gs.Graph, name: str, index: gs.Tensor, book: Codebook) -> gs.Tensor:
    """``first + stride * index`` as INT8, of indices in bytes."""
    signed = insert(graph, "Cast", f"{name}.signed", [index], {"to": _INT8})
    stride = gs.Constant(f"{name}.stride", np.array(book.stride, dtype=np.int8))
    first = gs.Constant(f"{name}.first", np.array(book.first, dtype=np.int8))
    scaled = insert(graph, "Mul", f"{name}.scaled", [signed, stride])
    return insert(graph, "Add", name, [scaled, first])


def _plane(graph: gs.Graph, name: str, values: np.ndarray, width: int, plan: Plan) -> gs.Tensor:
    """Values ``0 .. 2^width - 1`` as UINT8, stored in ``width`` bits each."""
    if width == 8:
        return gs.Constant(f"{name}.uint8", values)
    if plan.storage != "own" and plan.opset >= MIN_OPSET[width]:
        stored = gs.Constant(f"{name}.uint{width}", values)
        note_packed(graph, stored.name, width)
        return insert(graph, "Cast", name, [stored], {"to": _UINT8})
    lanes = 8 // width
    padded = np.pad(values.reshape(-1), (0, -values.size % lanes)).reshape(lanes, -1)
    held = gs.Constant(f"{name}.bytes", pack_plane(padded.T, width).reshape(1, -1))
    places = width * np.arange(lanes, dtype=np.uint8).reshape(lanes, 1)
    shifts = shared_constant(graph, f"shifts{width}", places.astype(np.uint8))
    mask = shared_constant(graph, f"mask{width}", np.array(2**width - 1, dtype=np.uint8))
    shifted = insert(graph, "BitShift", f"{name}.down", [held, shifts], {"direction": "RIGHT"})
    parts = insert(graph, "BitwiseAnd", f"{name}.parts", [shifted, mask])
    shape = gs.Constant(f"{name}.shape", np.array(values.shape, dtype=np.int64))
    if padded.size != values.size:
        limits = [np.array([v], dtype=np.int64) for v in (0, values.size, 0)]
        flat_shape = shared_constant(graph, "flat", np.array([-1], dtype=np.int64))
        flat = insert(graph, "Reshape", f"{name}.flat", [parts, flat_shape])
        names = ("start", "end", "axis")
        operands = [gs.Constant(f"{name}.{n}", v) for n, v in zip(names, limits, strict=True)]
        parts = insert(graph, "Slice", f"{name}.cut", [flat, *operands])
    return insert(graph, "Reshape", name, [parts, shape])
