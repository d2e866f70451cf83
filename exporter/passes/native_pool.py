"""Average poolings of a shortcut as one native operator, both sides at once.

A CQB takes its stride by averages of 1 or 2 neighbours (paper Eq. 9), columns first and then rows:
``(a + b) / 2`` each time. ``MeanPool`` does both in one pass over memory, in the same order.

Assumes: ``AveragePool`` of :data:`.channels_last.NHWC`, as :mod:`.channels_last` leaves it.
Guarantees: the same floats. Other windows, strides and paddings are left, and a note says so.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..multithreshold import DOMAIN
from .base import Outcome, producer, replace_uses, tidy
from .channels_last import NHWC

_LONGEST = 2


def native_pool(graph: gs.Graph) -> Outcome:
    """Rewrite every average pooling that fits; ``applied`` counts the operators written."""
    outcome = Outcome()
    graph.toposort()
    for node in [n for n in graph.nodes if n.op == "AveragePool" and n.domain == NHWC]:
        window = node.attrs["kernel_shape"]
        if not _fits(node):
            outcome.notes.append(f"{node.name}: no pooling side by side of 1 or 2; left as it is")
            continue
        round_up = int(node.attrs.get("ceil_mode", 0))
        source = node.inputs[0]
        columns = producer(source, "MeanPool")
        if columns is not None and _continues(columns, window, round_up):
            columns.attrs["window"] = [int(window[0]), columns.attrs["window"][1]]
            replace_uses(graph, node.outputs[0], source)
            node.outputs.clear()
            continue
        out = gs.Variable(f"{node.outputs[0].name}.pooled")
        attrs = {"window": [int(side) for side in window], "round_up": round_up}
        name = f"{out.name}/MeanPool"
        graph.nodes.append(gs.Node("MeanPool", name, attrs, [source], [out], domain=DOMAIN))
        replace_uses(graph, node.outputs[0], out)
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _fits(node: gs.Node) -> bool:
    attrs = node.attrs
    window = list(attrs["kernel_shape"])
    return (
        len(window) == 2
        and max(window) <= _LONGEST
        and list(attrs.get("strides", [1, 1])) == window
        and not any(attrs.get("pads", [0] * 4))
        and set(attrs.get("dilations", [1])) == {1}
    )


def _continues(columns: gs.Node, window: list[int], round_up: int) -> bool:
    """Whether a pooling of rows can join the one of columns that alone feeds it."""
    alone = len(columns.outputs[0].outputs) == 1
    rows_only = columns.attrs["window"][0] == 1 and window[1] == 1
    return alone and rows_only and columns.attrs["round_up"] == round_up
