"""``MultiThreshold`` to standard operators, its codes between QuantizeLinear and DequantizeLinear.

Up to 15 thresholds: one comparison each, ``sum_i Cast(x >= T_i)``. More (8 bits: 255): a binary
search in the table, ``log2(n + 1)`` rounds of Gather and compare instead of ``n`` comparisons;
both count the thresholds that ``x`` reaches, exactly. The count then passes a QuantizeLinear with
scale 1 (an exact cast to INT8, or UINT8 above code 127) and a DequantizeLinear with scale 1:
consumers that know Q/DQ see integer activations, and the true step is multiplied in after the
convolution. Where the convolutions read ``code - zero``, zero is taken from the count and becomes
the zero point of both: QuantizeLinear gives the code, DequantizeLinear ``code - zero``.

Assumes: ``MultiThreshold(x, T)``, ``T`` a constant ``[C or 1, n]``, ascending, along axis 1 or the
node's ``axis``; every reader of its
codes takes the same constant from them, or none does.
Guarantees: no operator outside the standard domain is left; codes are equal; each code tensor is
called ``<layer>.codes``.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import (
    Outcome,
    ascending,
    centred_uses,
    constant,
    insert,
    per_channel_shape,
    refuse,
    replace_uses,
    tidy,
    unit_scale,
)
from .comparisons import above_zero, comparison

#: Most thresholds that are compared one by one.
CHAIN_LIMIT = 15
_FLOAT, _UINT8, _INT32 = 1, 2, 6  # TensorProto data types


def lower_thresholds(graph: gs.Graph, *, in_bytes: bool = False) -> Outcome:
    """Lower every ``MultiThreshold``.

    Args:
        in_bytes: count comparisons in UINT8, and give codes as UINT8 whatever their width: on x86
            a quarter of the memory traffic, and the type that INT8 kernels read there. For
            OpenVINO, which takes subnormal constants for zero.
    """
    outcome = Outcome()
    scale = unit_scale(graph)
    for node in [node for node in graph.nodes if node.op == "MultiThreshold"]:
        layer = node.attrs.get("layer", node.name)
        table = constant(node.inputs[1])
        if table is None or not ascending(table):
            raise refuse(layer, "its thresholds are not an ascending constant", "freeze it again")
        x, old = node.inputs[0], node.outputs[0]
        shape = per_channel_shape(node)
        if in_bytes and not all(_kept_above_zero(row) for row in _compared(table)):
            raise refuse(
                layer,
                "it has thresholds at zero and subnormal ones, which OpenVINO takes for zero",
                "export for onnx or cpu",
            )
        if table.shape[1] <= CHAIN_LIMIT:
            kind = _UINT8 if in_bytes else _FLOAT
            count = count_reached(graph, layer, x, table, shape, kind)
            if in_bytes:
                count = insert(graph, "Cast", f"{layer}.count", [count], {"to": _FLOAT})
        else:
            position = binary_search(graph, layer, x, table, shape)
            count = insert(graph, "Cast", f"{layer}.count", [position], {"to": _FLOAT})
        wide = in_bytes or table.shape[1] > 127
        level, readers = centred_uses(old)
        if level:
            taken = gs.Constant(f"{layer}.level", np.array(level, dtype=np.float32))
            count = insert(graph, "Sub", f"{layer}.centred", [count, taken])
        point = np.array(int(level), dtype=np.uint8 if wide else np.int8)
        zero = gs.Constant(f"{layer}.zero", point)
        pads = [reader for reader in old.outputs if reader.op == "Pad"]
        for pad in pads:
            _quantise_padded(graph, pad, count, [scale, zero])
        if old.outputs or not pads:
            codes = insert(graph, "QuantizeLinear", f"{layer}.codes", [count, scale, zero])
            values = insert(graph, "DequantizeLinear", f"{layer}.values", [codes, scale, zero])
            for reader in readers:
                replace_uses(graph, reader.outputs[0], values)
                reader.outputs.clear()
            replace_uses(graph, old, values)
        else:  # every convolution reads them padded
            count.name = f"{layer}.codes"
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _compared(table: np.ndarray) -> list[np.ndarray]:
    """The thresholds of each comparison that :func:`count_reached` or a search makes."""
    return list(table.T) if table.shape[1] <= CHAIN_LIMIT else [table]


def _kept_above_zero(table: np.ndarray) -> bool:
    return not above_zero(table) or comparison(table)[1] == "Greater"


def _quantise_padded(
    graph: gs.Graph, pad: gs.Node, count: gs.Tensor, form: list[gs.Tensor]
) -> None:
    """Pad the count, not the codes: QuantizeLinear has to stand directly before a convolution."""
    name = pad.outputs[0].name
    readers = [(node, node.inputs.index(pad.outputs[0])) for node in pad.outputs[0].outputs]
    pad.inputs[0] = count
    codes = insert(graph, "QuantizeLinear", f"{name}.bytes", [pad.outputs[0], *form])
    values = insert(graph, "DequantizeLinear", f"{name}.values", [codes, *form])
    for node, index in readers:
        node.inputs[index] = values


def count_reached(
    graph: gs.Graph,
    layer: str,
    x: gs.Tensor,
    table: np.ndarray,
    shape: tuple[int, ...],
    kind: int,
) -> gs.Tensor:
    """How many thresholds ``x`` reaches, one comparison each, as a sum of ones of type ``kind``.

    Args:
        table: ascending, ``[C or 1, n]``.
        shape: of a row of it, to lie along the channels of ``x``.
    """
    total: gs.Tensor | None = None
    for index in range(table.shape[1]):
        name = f"{layer}.t{index}"
        limits, compare = comparison(table[:, index].reshape(shape).astype(np.float32))
        threshold = gs.Constant(name, limits)
        reached = insert(graph, compare, f"{name}.reached", [x, threshold])
        one = insert(graph, "Cast", f"{name}.one", [reached], {"to": kind})
        total = one if total is None else insert(graph, "Add", f"{name}.sum", [total, one])
    if total is None:
        raise refuse(layer, "it has no thresholds", "freeze it again")
    return total


def binary_search(
    graph: gs.Graph, layer: str, x: gs.Tensor, table: np.ndarray, shape: tuple[int, ...]
) -> gs.Tensor:
    """How many of ``2^k - 1`` thresholds ``x`` reaches, INT32.

    Args:
        table: ascending, ``[C or 1, 2^k - 1]``.
        shape: of a row of it, to lie along the channels of ``x``.
    """
    channels, top = table.shape
    rounds = int(np.log2(top + 1))
    if 2**rounds != top + 1:
        raise refuse(layer, f"{top} thresholds are not 2^k - 1", "use 1, 2, 3, 4 or 8 bits")
    limits, compare = comparison(table.astype(np.float32))
    flat = gs.Constant(f"{layer}.table", limits.reshape(-1))
    first = (np.arange(channels, dtype=np.int32) * top).reshape(shape)
    position: gs.Tensor | None = None  # codes found so far, int32
    for k in reversed(range(rounds)):
        name, half = f"{layer}.s{k}", 2**k
        probe = gs.Constant(f"{name}.probe", first + np.int32(half - 1))
        if position is None:
            row = gs.Constant(f"{name}.row", limits[:, half - 1].reshape(shape))
            threshold: gs.Tensor = row
        else:
            index = insert(graph, "Add", f"{name}.index", [position, probe])
            threshold = insert(graph, "Gather", f"{name}.threshold", [flat, index], {"axis": 0})
        reached = insert(graph, compare, f"{name}.reached", [x, threshold])
        bit = insert(graph, "Cast", f"{name}.bit", [reached], {"to": _INT32})
        weight = gs.Constant(f"{name}.weight", np.array(half, dtype=np.int32))
        found = insert(graph, "Mul", f"{name}.found", [bit, weight])
        position = (
            found if position is None else insert(graph, "Add", f"{name}.sum", [position, found])
        )
    return position
