"""Fold the monotone chain before a quantizer into its thresholds, per channel (DESIGN 3.3).

Shift, PReLU, shift and thresholds are together a step function of one float per channel, and with
slopes >= 0 a non-decreasing one (rounding to float32 is monotone too). Its steps are found by
bisection over all float32 numbers, evaluating the chain itself in float32: every operation of the
chain is one IEEE operation, so the table is exact, not close.

Assumes: ``MultiThreshold(f(...g(x)), T)`` with ``f .. g`` among Add, Mul of a per-channel constant,
PRelu, Relu. Guarantees: the longest monotone end of the chain is gone and the table is ``[C, n]``;
codes are equal for every float32 input, the infinities and NaN (code 0) among them. A negative
slope, or a factor that is not positive, stops the fold there, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from ...models.float_order import F32, bisect_thresholds
from .base import Outcome, constant, per_channel_constant, producer, tidy


class Link(NamedTuple):
    """One operation of a chain: its input tensor and what it does to ``[C, m]`` float32 rows.

    ``monotone`` is false where ``what`` says why; ``exact`` where ``apply`` is not the operation.
    """

    source: gs.Tensor
    apply: Callable[[F32], F32]
    channels: int
    monotone: bool
    what: str
    exact: bool = True


def fold_chain(graph: gs.Graph) -> Outcome:
    """Apply the fold to every ``MultiThreshold``."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "MultiThreshold"]:
        layer = node.attrs.get("layer", node.name)
        links = chain_behind(node.inputs[0])
        usable: list[Link] = []
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
        # Only slope 0 behind minus infinity makes a NaN; it reaches no threshold.
        return np.where(np.isnan(x), 0, np.searchsorted(table, x, side="right"))

    with np.errstate(over="ignore", invalid="ignore"):
        return bisect_thresholds(codes, rows=channels, top=table.size)


def chain_behind(tensor: gs.Tensor) -> list[Link]:
    """The operations behind ``tensor``, last first, as far as they are per-channel and known."""
    links: list[Link] = []
    while (node := producer(tensor)) is not None:
        link = _link(node)
        if link is None:
            break
        links.append(link)
        tensor = link.source
    return links


def _link(node: gs.Node) -> Link | None:
    if node.op == "Relu":
        return Link(node.inputs[0], lambda x: np.maximum(x, np.float32(0)), 1, True, "")
    if node.op not in ("Add", "Mul", "PRelu"):
        return None
    for data in (0, 1) if node.op != "PRelu" else (0,):
        value = per_channel_constant(node, data)
        if value is not None:
            return _step(node.op, node.inputs[data], value.astype(np.float32))
    return None


def _step(op: str, source: gs.Tensor, value: F32) -> Link:
    column = value[:, None]

    def link(apply: Callable[[F32], F32], bad: np.ndarray, what: str) -> Link:
        count = int(bad.sum())
        return Link(source, apply, value.size, count == 0, f"{count} of {value.size} {what}")

    infinite = ~np.isfinite(value)
    if infinite.any():
        left = link(lambda x: x, infinite, f"constants of {op} are not finite")
        return left._replace(exact=False)
    if op == "PRelu":
        return link(
            lambda x: np.where(x < 0, column * x, x),
            value < 0,
            "PReLU slopes are negative, so not monotone",
        )
    if op == "Mul":  # by zero, what overflowed before it would be no number
        return link(lambda x: x * column, value <= 0, "factors are not positive, so not increasing")
    return link(lambda x: x + column, infinite, "")
