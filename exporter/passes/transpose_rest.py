"""Private channels-last operators as the standard ones, between two Transposes.

For what no other pass has a better form for (depthwise convolutions, convolutions of floats, odd
poolings), and as the plain meaning of :mod:`.channels_last`'s operators.

Assumes: ``Conv``, ``MaxPool``, ``AveragePool`` of the domain :data:`.channels_last.NHWC`.
Guarantees: none of them is left; the same numbers.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Outcome, insert, replace_uses, tidy
from .channels_last import NHWC, TO_FIRST, TO_LAST

_OPERATORS = ("Conv", "MaxPool", "AveragePool")


def transpose_rest(graph: gs.Graph) -> Outcome:
    """Write every private convolution and pooling that is left."""
    outcome = Outcome()
    for node in [n for n in graph.nodes if n.domain == NHWC and n.op in _OPERATORS]:
        out = node.outputs[0]
        first = insert(
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
