"""A 1x1 convolution as the INT4 matrix product of a classic TensorRT, where that stays exact.

TensorRT since 10 holds INT4 weights for matrix products alone, scaled by blocks of 64 or 128 along
the inner dimension, and computes in half precision. Half precision holds whole numbers up to 2048:
a layer whose sums stay within that is exact in it, in any order of summation, and any other layer
stays INT8. All scales are 1.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import insert, replace_uses, shared_constant
from .codebook import largest_sum
from .engine_blob import int4_constant

#: Whole numbers up to here are exact in float16.
HALF_LIMIT = 2**11
#: Blocks that TensorRT documents, the preferred one first.
_BLOCKS = (128, 64)
_FLOAT, _HALF = 1, 10  # TensorProto data types


def why_no_product(conv: gs.Node, codes: np.ndarray, top: int) -> str:
    """Why ``conv`` cannot be an INT4 product; empty if it can.

    Args:
        codes: its integer weights ``[C_out, C_in, k, k]``.
        top: largest magnitude of an activation code.
    """
    if tuple(codes.shape[2:]) != (1, 1) or any(conv.attrs.get("pads", [0])):
        return "not a 1x1 convolution"
    if _block(codes.shape[1]) is None:
        return f"{codes.shape[1]} input channels are no multiple of 64"
    if codes.min() < -8 or codes.max() > 7:
        return f"its weights reach {int(np.abs(codes).max())}, beyond INT4"
    bound = largest_sum(codes, top)
    if bound > HALF_LIMIT:
        return f"its sums reach {bound}, beyond what half precision holds exactly ({HALF_LIMIT})"
    return ""


def _block(channels: int) -> int | None:
    return next((size for size in _BLOCKS if channels % size == 0), None)


def as_product(graph: gs.Graph, layer: str, conv: gs.Node, codes: np.ndarray) -> None:
    """Replace ``conv``; its stride becomes a ``Slice``, channels go last and come back."""
    x = conv.inputs[0]
    rows, columns = conv.attrs.get("strides", [1, 1])
    if (rows, columns) != (1, 1):
        numbers = {"starts": [0, 0], "ends": [2**31 - 1] * 2, "axes": [2, 3]}
        operands = [
            shared_constant(graph, f"every.{name}", np.array(value, dtype=np.int64))
            for name, value in numbers.items()
        ]
        steps = gs.Constant(f"{layer}.steps", np.array([rows, columns], dtype=np.int64))
        x = insert(graph, "Slice", f"{layer}.strided", [x, *operands, steps])
    last = insert(graph, "Transpose", f"{layer}.last", [x], {"perm": [0, 2, 3, 1]})
    half = insert(graph, "Cast", f"{layer}.half", [last], {"to": _HALF})
    matrix = codes[:, :, 0, 0]
    size = _block(matrix.shape[1])
    held = int4_constant(graph, f"{layer}.weight.int4", matrix)
    ones = np.ones((matrix.shape[0], matrix.shape[1] // (size or 1)), dtype=np.float16)
    scales = gs.Constant(f"{layer}.weight.scales", ones)
    attrs = {"axis": 1, "block_size": size}
    rows_first = insert(graph, "DequantizeLinear", f"{layer}.weight.rows", [held, scales], attrs)
    # Stored by rows: ONNX Runtime would replace a product with columns by its MatMulNBits, which
    # rounds activations to 8 bits (measured: codes differ).
    weight = insert(graph, "Transpose", f"{layer}.weight.values", [rows_first], {"perm": [1, 0]})
    product = insert(graph, "MatMul", f"{layer}.product", [half, weight])
    single = insert(graph, "Cast", f"{layer}.single", [product], {"to": _FLOAT})
    acc = insert(graph, "Transpose", f"{layer}.acc", [single], {"perm": [0, 3, 1, 2]})
    replace_uses(graph, conv.outputs[0], acc)
    conv.outputs.clear()
