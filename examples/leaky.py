"""A pass of one's own: PReLU whose slopes are all equal becomes LeakyRelu.

A fresh network has one slope in all channels. LeakyRelu needs no tensor for it, and some runtimes
know it alone.

Assumes: ``PRelu`` with a constant slope.
Guarantees: equal numbers; both are ``x`` where ``x >= 0`` and else one product, ``slope * x``.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from qmdd.exporter.passes.base import Outcome, constant, insert, replace_uses, tidy


def leaky(graph: gs.Graph) -> Outcome:
    """Rewrite every ``PRelu`` that has one slope; say of the others why they stay."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "PRelu"]:
        slope = constant(node.inputs[1])
        if slope is None or slope.size == 0 or np.unique(slope).size != 1:
            outcome.notes.append(f"{node.name}: its slopes differ; left as it is")
            continue
        x, out = node.inputs[0], node.outputs[0]
        alpha = {"alpha": float(slope.reshape(-1)[0])}
        replace_uses(graph, out, insert(graph, "LeakyRelu", f"{out.name}.leaky", [x], alpha))
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome
