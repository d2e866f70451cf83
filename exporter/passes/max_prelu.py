"""PReLU as ``Max(x, slope * x)``: ONNX Runtime's own ``PRelu`` takes four times as long.

Where ``slope <= 1``, ``slope * x`` is the smaller of the two for ``x >= 0`` and the larger for
``x < 0`` (negative slopes too), so the larger is what PReLU gives; each side is one product. Two
zeros of unlike sign may change places, which no sum and no comparison tells. A channel whose slope
is above 1 wants the smaller one: its numbers change their sign before and after, ``-Max(-x, -slope
* x)``.

Assumes: ``PRelu`` with a constant slope; no infinities, which no bounded pixel gives (``0 * inf``
is no number); a NaN stays one.
Guarantees: equal numbers.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, replace_uses, tidy


def max_prelu(graph: gs.Graph) -> Outcome:
    """Rewrite every ``PRelu``."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "PRelu"]:
        slope, out = constant(node.inputs[1]), node.outputs[0]
        if slope is None or not np.isfinite(slope).all():
            outcome.notes.append(f"{node.name}: its slopes are no finite constant; left as it is")
            continue
        x, name = node.inputs[0], out.name
        sign = np.where(slope > 1, -1, 1).astype(np.float32)
        turned = bool((sign < 0).any())
        if turned:
            turn = gs.Constant(f"{name}.sign", sign)
            x = insert(graph, "Mul", f"{name}.turned", [x, turn])
        slopes = gs.Constant(f"{name}.slope", slope.astype(np.float32))
        product = insert(graph, "Mul", f"{name}.product", [x, slopes])
        larger = insert(graph, "Max", f"{name}.larger", [x, product])
        if turned:
            larger = insert(graph, "Mul", f"{name}.back", [larger, turn])
        replace_uses(graph, out, larger)
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome
