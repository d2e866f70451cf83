"""``MultiThreshold`` for TensorRT: comparisons, then INT8 codes directly before each convolution.

``x >= t`` is ``x > prev(t)``, ``prev`` the next float below: the parser would expand ``>=`` into
``=``, ``>`` and ``or``, twice the work (measured). Where ``t`` is zero, ``>=`` stays: a GPU that
flushes subnormal numbers to zero would lose the difference (:mod:`.comparisons`).

The form is chosen by the number of thresholds, from the measurement in
``benchmarks/results/threshold_forms.json``: a chain of comparisons up to :data:`CHAIN_LIMIT`, one
broadcast comparison with a sum over its axis above. Up to there both are one kernel in TensorRT for
RTX, and a chain is one in any TensorRT, which a sum over an axis need not be.

TensorRT has no zero points. Codes that do not fit INT8 (8 bits: 0..255) are shifted: convolutions
read ``code - shift``, padded explicitly with ``-shift``, and get ``shift * sum(W)`` added to their
exact sums, an exact addition. Codes that are read as ``code - zero`` become that difference.

Assumes: ``MultiThreshold(x, T)``, ``T`` a constant ``[C or 1, n]``, ascending; convolutions whose
weights :mod:`.engine_weights` has placed.
Guarantees: equal codes; every dense convolution on codes reads ``DequantizeLinear(QuantizeLinear(
codes, 1), 1)``; each code tensor is called ``<layer>.codes``.
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
    producer,
    refuse,
    replace_uses,
    shared_constant,
    tidy,
    unit_scale,
)
from .comparisons import strict_limits

#: Most thresholds that are compared one by one; see benchmarks/threshold_forms.py.
CHAIN_LIMIT = 7
_FLOAT = 1  # TensorProto data type
_INT8_TOP = 127


def engine_thresholds(graph: gs.Graph) -> Outcome:
    """Lower every ``MultiThreshold``."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "MultiThreshold"]:
        layer = node.attrs.get("layer", node.name)
        table = constant(node.inputs[1])
        if table is None or table.shape[1] == 0 or not ascending(table):
            raise refuse(layer, "its thresholds are not an ascending constant", "freeze it again")
        form = compare_each if table.shape[1] <= CHAIN_LIMIT else compare_at_once
        count = form(graph, layer, node.inputs[0], table.astype(np.float32))
        hand_out(graph, layer, node, count, table.shape[1])
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def below(table: np.ndarray) -> tuple[np.ndarray, bool]:
    """``(u, strict)``: thresholds such that ``x >= t`` is ``x > u`` (strict) or ``x >= u``."""
    limits = strict_limits(table)
    return (table, False) if limits is None else (limits, True)


def compare_each(graph: gs.Graph, layer: str, x: gs.Tensor, table: np.ndarray) -> gs.Tensor:
    """``sum_i Cast(x > prev(T_i))``, one comparison after the other."""
    total: gs.Tensor | None = None
    for index in range(table.shape[1]):
        name = f"{layer}.t{index}"
        limit, strict = below(table[:, index].reshape(1, -1, 1, 1))
        threshold = gs.Constant(name, limit)
        reached = insert(graph, _compare(strict), f"{name}.reached", [x, threshold])
        one = insert(graph, "Cast", f"{name}.one", [reached], {"to": _FLOAT})
        total = one if total is None else insert(graph, "Add", f"{name}.sum", [total, one])
    if total is None:
        raise refuse(layer, "it has no thresholds", "freeze it again")
    return total


def compare_at_once(graph: gs.Graph, layer: str, x: gs.Tensor, table: np.ndarray) -> gs.Tensor:
    """``sum(x > prev(T))`` over a new axis, both sides of the image as one: four dimensions.

    With five dimensions TensorRT needs a second kernel (measured).
    """
    limit, strict = below(table)
    channels, count = table.shape
    threshold = gs.Constant(f"{layer}.table", limit.T.reshape(1, count, channels, 1).copy())
    axis = shared_constant(graph, "threshold.axis", np.array([1], dtype=np.int64))
    flat = gs.Constant(f"{layer}.flat.shape", np.array([0, 1, channels, -1], dtype=np.int64))
    shape = insert(graph, "Shape", f"{layer}.shape", [x])
    line = insert(graph, "Reshape", f"{layer}.flat", [x, flat])
    reached = insert(graph, _compare(strict), f"{layer}.reached", [line, threshold])
    ones = insert(graph, "Cast", f"{layer}.ones", [reached], {"to": _FLOAT})
    total = insert(graph, "ReduceSum", f"{layer}.sum", [ones, axis], {"keepdims": 1})
    return insert(graph, "Reshape", f"{layer}.count", [total, shape])


def _compare(strict: bool) -> str:
    return "Greater" if strict else "GreaterOrEqual"


def hand_out(graph: gs.Graph, layer: str, node: gs.Node, count: gs.Tensor, top: int) -> None:
    """Let every reader of the codes read ``count`` in the form that it needs."""
    old = node.outputs[0]
    zero, readers = centred_uses(old)
    shift = _shift(top, zero)
    plain = not zero and not shift
    dense = [conv for conv in _convolutions(old, readers) if _is_dense(conv)]
    floats = bool(zero or readers) or len(dense) < len(old.outputs)
    if not plain or not dense:
        count.name = f"{layer}.codes"
    if dense:
        values = _quantised(graph, layer, count, zero + shift, plain)
        for conv in dense:
            _read(graph, conv, values, shift)
    if floats:
        centred = count
        if readers:
            level = gs.Constant(f"{layer}.level", np.array(zero, dtype=np.float32))
            centred = insert(graph, "Sub", f"{layer}.centred", [count, level])
        for reader in readers:
            replace_uses(graph, reader.outputs[0], centred)
            reader.outputs.clear()
    replace_uses(graph, old, count)
    node.outputs.clear()


def _shift(top: int, zero: float) -> float:
    """What ``0 - zero .. top - zero`` must be lessened by to fit INT8; 0 where it fits."""
    return min(max(0.0, top - zero - _INT8_TOP), 1 + _INT8_TOP - zero)


def _convolutions(codes: gs.Tensor, readers: list[gs.Node]) -> list[gs.Node]:
    tensors = [codes, *(reader.outputs[0] for reader in readers)]
    return [node for tensor in tensors for node in tensor.outputs if node.op == "Conv"]


def _is_dense(conv: gs.Node) -> bool:
    return int(conv.attrs.get("group", 1)) == 1


def _quantised(
    graph: gs.Graph, layer: str, count: gs.Tensor, shift: float, plain: bool
) -> gs.Tensor:
    """``count - shift`` through INT8; the INT8 tensor is the code tensor where it holds codes."""
    if shift:
        taken = gs.Constant(f"{layer}.shift", np.array(shift, dtype=np.float32))
        count = insert(graph, "Sub", f"{layer}.shifted", [count, taken])
    scale = unit_scale(graph)
    zero = shared_constant(graph, "code.zero", np.array(0, dtype=np.int8))
    name = f"{layer}.codes" if plain else f"{layer}.int8"
    codes = insert(graph, "QuantizeLinear", name, [count, scale, zero])
    return insert(graph, "DequantizeLinear", f"{layer}.values", [codes, scale, zero])


def _read(graph: gs.Graph, conv: gs.Node, values: gs.Tensor, shift: float) -> None:
    """Let ``conv`` read INT8 ``values``; what ``shift`` took from its sums is added again."""
    conv.inputs[0] = values
    if not shift:
        return
    weights = _weights(conv)
    if any(conv.attrs.get("pads", [0])):
        conv.inputs[0] = _padded(graph, conv, values, -shift)
        conv.attrs["pads"] = [0, 0, 0, 0]
    name = conv.outputs[0].name
    total = weights.reshape(weights.shape[0], -1).sum(1) * shift
    constant_sum = gs.Constant(f"{name}.offset", total.reshape(1, -1, 1, 1).astype(np.float32))
    old = conv.outputs[0]
    raw = gs.Variable(f"{name}.raw")
    conv.outputs = [raw]
    added = insert(graph, "Add", f"{name}.restored", [raw, constant_sum])
    replace_uses(graph, old, added)


def _padded(graph: gs.Graph, conv: gs.Node, values: gs.Tensor, value: float) -> gs.Tensor:
    """``values`` with an explicit border, before QuantizeLinear: no operator may stand behind."""
    dequantise = producer(values, "DequantizeLinear")
    quantise = producer(dequantise.inputs[0], "QuantizeLinear") if dequantise else None
    if dequantise is None or quantise is None:
        raise refuse(conv.name, "its codes do not come through QuantizeLinear", "export it again")
    top, left, bottom, right = conv.attrs["pads"]
    name = f"{conv.outputs[0].name}.padded"
    pads = gs.Constant(f"{name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
    fill = gs.Constant(f"{name}.fill", np.array(value, dtype=np.float32))
    padded = insert(graph, "Pad", name, [quantise.inputs[0], pads, fill], {"mode": "constant"})
    codes = insert(graph, "QuantizeLinear", f"{name}.int8", [padded, *quantise.inputs[1:]])
    return insert(graph, "DequantizeLinear", f"{name}.values", [codes, *dequantise.inputs[1:]])


def _weights(conv: gs.Node) -> np.ndarray:
    """Integer weights of ``conv`` times their scale."""
    weights = producer(conv.inputs[1], "DequantizeLinear")
    codes = constant(weights.inputs[0]) if weights is not None else None
    scale = constant(weights.inputs[1]) if weights is not None else None
    if codes is None or scale is None:  # 8-bit codes with weights of 4 bits or fewer, packed
        raise refuse(conv.name, "shifted codes need weights held as INT8", "use --weights int8")
    return codes.astype(np.int64) * int(scale)
