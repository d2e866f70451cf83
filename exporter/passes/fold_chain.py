"""Fold the monotone chain before a quantizer into its thresholds, per channel (DESIGN 3.3).

Shift, PReLU, shift and thresholds are together a step function of one float per channel, and with
slopes >= 0 a non-decreasing one (rounding to float32 is monotone too). Its steps are found by
bisection over all float32 numbers, evaluating the chain itself in float32: every operation of the
chain is one IEEE operation, so the table is exact, not close.

Assumes: ``MultiThreshold(f(...g(x)), T)`` with ``f .. g`` among Add, Sub, Mul of a per-channel
constant, PRelu, Relu. Guarantees: the longest monotone end of the chain is gone and the table is
``[C, n]``; codes are equal for every float32 input. A negative slope or factor stops the fold
there, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from ...models.float_order import F32, bisect_thresholds
from .base import Outcome, constant, per_channel_constant, producer, tidy


class _Link(NamedTuple):
    """One operation of a chain: its input tensor and what it does to ``[C, m]`` float32 rows."""

    source: gs.Tensor
    apply: Callable[[F32], F32]
    channels: int
    monotone: bool
    what: str


def fold_chain(graph: gs.Graph) -> Outcome:
    """Apply the fold to every ``MultiThreshold``."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "MultiThreshold"]:
        layer = node.attrs.get("layer", node.name)
        links = _chain(node.inputs[0])
        usable: list[_Link] = []
        for link in links:
            if not link.monotone:
                outcome.notes.append(f"{layer}: {link.what}; the chain before it stays explicit")
                break
            usable.append(link)
        channels = max((link.channels for link in usable), default=1)
        if not usable:
            continue
        table = constant(node.inputs[1])
        if table is None or table.shape[0] != 1:
            outcome.notes.append(f"{layer}: its thresholds are not one constant row; left as it is")
            continue
        folded = fold_table(table[0], [link.apply for link in reversed(usable)], channels)
        node.inputs[0] = usable[-1].source
        node.inputs[1] = gs.Constant(f"{layer}.thresholds", folded)
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def fold_table(table: F32, steps: list[Callable[[F32], F32]], channels: int) -> F32:
    """Thresholds float32 ``[channels, n]`` of ``table`` (``[n]``) behind ``steps``, in order."""

    def codes(x: F32) -> np.ndarray:
        for step in steps:
            x = step(x)
        return np.searchsorted(table, x, side="right")

    with np.errstate(over="ignore"):
        return bisect_thresholds(codes, rows=channels, top=table.size)


def _chain(tensor: gs.Tensor) -> list[_Link]:
    """The operations behind ``tensor``, last first, as far as they are per-channel and known."""
    links: list[_Link] = []
    while (node := producer(tensor)) is not None:
        link = _link(node)
        if link is None:
            break
        links.append(link)
        tensor = link.source
    return links


def _link(node: gs.Node) -> _Link | None:
    if node.op == "Relu":
        return _Link(node.inputs[0], lambda x: np.maximum(x, np.float32(0)), 1, True, "")
    if node.op == "PRelu":
        slope = per_channel_constant(node, 0)
        return None if slope is None else _prelu(node, slope.astype(np.float32))
    if node.op in ("Add", "Mul"):
        for data in (0, 1):
            value = per_channel_constant(node, data)
            if value is not None:
                return _arithmetic(node, node.inputs[data], value.astype(np.float32))
    return None


def _prelu(node: gs.Node, slope: F32) -> _Link:
    column = slope[:, None]

    def apply(x: F32) -> F32:
        return np.where(x < 0, column * x, x)

    negative = int((slope < 0).sum())
    what = f"{negative} of {slope.size} PReLU slopes are negative, so not monotone"
    return _Link(node.inputs[0], apply, slope.size, negative == 0, what)


def _arithmetic(node: gs.Node, source: gs.Tensor, value: F32) -> _Link:
    column = value[:, None]
    if node.op == "Add":
        return _Link(source, lambda x: x + column, value.size, True, "")
    negative = int((value < 0).sum())
    what = f"{negative} of {value.size} factors are negative, so decreasing"
    return _Link(source, lambda x: x * column, value.size, negative == 0, what)
