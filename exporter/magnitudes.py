"""No number that leads to a quantizer may leave float32's range: no infinity, no NaN.

Every runtime gives NaN the code 0 where it compares with thresholds, but OpenVINO, which gives it
the largest; and what a maximum or a ReLU makes of NaN is each runtime's own. So nothing may come to
that, whatever the image: pixels and codes are bounded, constants are known, and the largest
magnitude that each tensor can have follows, operation by operation. A network that could pass the
largest float32, or that holds NaN, is refused here, before anything is compared.

The bounds are not sharp, and need not be: trained networks stay some thirty powers of ten below.
Where an operation is not known here, nothing is claimed of what comes after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import ExportError
from .exactness import TracedGraph, layer_of

if TYPE_CHECKING:
    import onnx

_LARGEST = float(np.finfo(np.float32).max)
_PIXEL = 255.0
#: The result is among the first operand's numbers, or no larger.
_FIRST = frozenset({
    "Abs", "Cast", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Identity", "MaxPool", "Neg", "Relu", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
#: It is among the numbers of all operands.
_ANY = frozenset({"Clip", "Concat", "Max", "Min", "Where"})
#: It is false or true.
_TRUTH = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Sign"})


def check_magnitudes(model: onnx.ModelProto) -> None:
    """Refuse a traced ``model`` in which a number before a quantizer can leave float32's range.

    Raises:
        ExportError: names the layer.
    """
    graph = TracedGraph(model)
    leading = graph.leading()
    bounds: dict[str, float | None] = dict.fromkeys(graph.inputs, _PIXEL)
    for name, value in graph.constants.items():
        if value.dtype.kind == "f":
            bounds[name] = float(np.abs(value).max(initial=0.0))
        elif value.dtype.kind in "iub":
            bounds[name] = float(np.abs(value.astype(np.float64)).max(initial=0.0))
    for node in graph.nodes:  # in order: what a node reads has been made
        bound = _bound(node, graph, bounds)
        for out in node.output:
            bounds[out] = bound
        # A comparison is how NaN shows: it is not below anything.
        if bound is not None and leading & set(node.output) and not bound < _LARGEST:
            raise ExportError(
                f"{layer_of(node)}: its numbers can leave float32's range (up to {bound:.3g}): "
                "codes would be undefined; its batch-norm, a step or a scale is no sensible "
                "number, train or calibrate it again"
            )


def _bound(
    node: onnx.NodeProto, graph: TracedGraph, bounds: dict[str, float | None]
) -> float | None:
    """The largest magnitude of ``node``'s result; NaN if it may hold one, None if unknown."""
    operands = [bounds.get(name) for name in node.input if name]
    first = operands[0] if operands else None
    if node.op_type == "MultiThreshold":
        return float(graph.constants[node.input[1]].shape[-1])
    if node.op_type in _TRUTH:
        return 1.0
    if node.op_type in _FIRST:
        return first
    if any(operand is None for operand in operands):
        return None
    known = [operand for operand in operands if operand is not None]
    if node.op_type in _ANY:
        return float(np.max(known))  # NaN, if one is, unlike Python's own max
    if node.op_type == "Pad":
        return float(np.max([known[0], *known[2:3]]))
    if node.op_type in ("Add", "Sub"):
        return sum(known)
    if node.op_type in ("Mul", "DequantizeLinear"):
        return float(np.prod(known[:2]))
    if node.op_type == "PRelu":
        return known[0] * float(np.maximum(1.0, known[1]))
    if node.op_type == "AveragePool":  # a sum first
        kernel = next(a.ints for a in node.attribute if a.name == "kernel_shape")
        return known[0] * float(np.prod(kernel))
    if node.op_type == "Conv":
        weight = graph.weight(node.input[1])
        return None if weight is None else known[0] * weight
    return None
