"""Private channels-last operators as the standard ones, between two Transposes.

For what no other pass has a better form for (depthwise convolutions, convolutions of floats, odd
poolings), and as the plain meaning of :mod:`.channels_last`'s operators.

What was channels-first just before is read there: Transposes do not follow each other, and the
image is not turned at all for the first convolution.

Assumes: ``Conv``, ``MaxPool``, ``AveragePool`` of the domain :data:`.channels_last.NHWC`.
Guarantees: none of them is left; the same numbers. Sums of integers that floats do not hold (2^24)
are refused.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import (
    Outcome,
    codes_behind,
    constant,
    insert,
    largest_code,
    producer,
    refuse,
    replace_uses,
    tidy,
)
from .channels_last import NHWC, TO_FIRST, TO_LAST
from .codebook import EXACT_LIMIT, largest_sum

_PIXEL_TOP = 255
_OPERATORS = ("Conv", "MaxPool", "AveragePool")


def transpose_rest(graph: gs.Graph) -> Outcome:
    """Write every private convolution and pooling that is left."""
    outcome = Outcome()
    for node in [n for n in graph.nodes if n.domain == NHWC and n.op in _OPERATORS]:
        out = node.outputs[0]
        if node.op == "Conv":
            _check_sums(node)
        first = _first(graph, node.inputs[0]) or insert(
            graph, "Transpose", f"{out.name}.input", [node.inputs[0]], {"perm": list(TO_FIRST)}
        )
        plain = insert(
            graph, node.op, f"{out.name}.plain", [first, *node.inputs[1:]], dict(node.attrs)
        )
        last = insert(graph, "Transpose", f"{out.name}.turned", [plain], {"perm": list(TO_LAST)})
        replace_uses(graph, out, last)
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _first(graph: gs.Graph, tensor: gs.Tensor) -> gs.Tensor | None:
    """``tensor`` channels-first where that was turned, or made of it by a cast or a difference."""
    node = producer(tensor, "Transpose", "Cast", "Sub")
    if node is None:
        return None
    if node.op == "Transpose":
        return node.inputs[0] if list(node.attrs["perm"]) == TO_LAST else None
    rest = [constant(operand) for operand in node.inputs[1:]]
    source = _first(graph, node.inputs[0]) if all(v is not None for v in rest) else None
    if source is None:
        return None
    name = f"{tensor.name}.first"
    operands = [gs.Constant(f"{name}.by", v.reshape(-1, 1, 1)) for v in rest if v is not None]
    return insert(graph, node.op, name, [source, *operands], dict(node.attrs))


def _check_sums(conv: gs.Node) -> None:
    scale = producer(conv.inputs[1], "DequantizeLinear")
    weights = constant(scale.inputs[0]) if scale is not None else None
    source = codes_behind(conv.inputs[0])
    top = _PIXEL_TOP if source is None else largest_code(source)
    if weights is not None and largest_sum(weights, top) >= EXACT_LIMIT:
        raise refuse(conv.name, "its integer sums pass 2^24", "use fewer bits, or no groups")
