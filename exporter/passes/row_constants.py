"""Constants of a channel written out along a row of pixels where there are few channels.

ONNX Runtime takes an operand ``[C]`` of a tensor ``[N, H, W, C]`` as ``N * H * W`` loops of ``C``
numbers. Of 64 channels that costs as much again as the numbers themselves (measured: docs/cpu.md).
So the constant is repeated for the pixels of one row, ``[W, C]``, by an Expand of two microseconds,
and the loops are ``W`` times as long.

Assumes: a graph channels-last, its private operators written; ``W`` is free.
Guarantees: the same numbers. Longer constants, and tensors of other ranks, are left.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, tidy
from .channels_last import CHANNELS, TO_LAST

#: Longest constant that is written out: beyond, nothing is gained (measured: docs/cpu.md).
LONGEST = 128
_ELEMENTWISE = frozenset({
    "Add", "Div", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Sub",
})  # fmt: skip
_UNARY = frozenset({"Abs", "Cast", "Clip", "Neg", "Relu"})


def row_constants(graph: gs.Graph) -> Outcome:
    """Write out the constants of every element-wise operator."""
    outcome = Outcome()
    graph.toposort()
    rows = _Rows(graph)
    for node in list(graph.nodes):
        like = rows.note(node)
        if like is None or node.op not in _ELEMENTWISE:
            continue
        for index, tensor in enumerate(node.inputs):
            value = constant(tensor)
            if value is None or value.ndim != 1 or not 1 < value.size <= LONGEST:
                continue
            name = f"{node.outputs[0].name}.row"
            node.inputs[index] = insert(graph, "Expand", name, [tensor, rows.shape(like)])
            outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


class _Rows:
    """Which tensors are channels-last, each with one of the same size whose shape is known."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self._like: dict[str, gs.Tensor] = {}
        self._turned: set[str] = set()
        self._shapes: dict[str, gs.Tensor] = {}

    def note(self, node: gs.Node) -> gs.Tensor | None:
        """A tensor that the channels-last operands of ``node`` are as large as, if there is one.

        What a Transpose gives has none: asked for its shape, ONNX Runtime would transpose twice.
        """
        single = node.op in _ELEMENTWISE or node.op in _UNARY
        read = [self._like[t.name] for t in node.inputs if t.name in self._like]
        turned = any(t.name in self._turned for t in node.inputs)
        out = node.outputs[0]
        if node.op == "Transpose" and list(node.attrs.get("perm", [])) == TO_LAST:
            self._turned.add(out.name)
        elif (
            node.op in ("MatMulInteger", "MatMulIntegerToFloat")
            or (single and turned)
            or (read and _keeps_rank(node))
        ):
            self._like[out.name] = out
        elif single and read:
            self._like[out.name] = read[0]
        return read[0] if single and read else None

    def shape(self, like: gs.Tensor) -> gs.Tensor:
        """``[W, C]`` of a channels-last tensor."""
        if like.name not in self._shapes:
            attrs = {"start": 2, "end": 4}
            self._shapes[like.name] = insert(self.graph, "Shape", f"{like.name}.row", [like], attrs)
        return self._shapes[like.name]


def _keeps_rank(node: gs.Node) -> bool:
    """Whether ``node`` gives another channels-last tensor, of a size of its own."""
    joined = node.op == "Concat" and node.attrs["axis"] == CHANNELS
    return joined or node.op in ("Slice", "Pad")
