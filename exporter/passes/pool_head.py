"""The head's mean over both sides as ``GlobalAveragePool``, which every opset and engine knows.

Assumes: ``ReduceMean`` over axes 2 and 3 without kept dimensions. Guarantees: the same mean (the
order of its sum, and with it the last bit of the logit, is each runtime's own either way).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, replace_uses, tidy


def pool_head(graph: gs.Graph) -> Outcome:
    """Rewrite every such ``ReduceMean``."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "ReduceMean"]:
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if axes is None or sorted(axes.tolist()) != [2, 3] or node.attrs.get("keepdims", 1):
            outcome.notes.append(f"{node.name}: not a mean over both sides; left as it is")
            continue
        pooled = insert(graph, "GlobalAveragePool", "head.pooled", [node.inputs[0]])
        flat = insert(graph, "Flatten", "head.features", [pooled], {"axis": 1})
        replace_uses(graph, node.outputs[0], flat)
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome
