"""The scale behind a matrix product, taken into its kernel, by an operator of Microsoft's.

``MatMulInteger -> Cast -> Mul(m)`` writes the sums as integers, reads them, writes floats, and
reads those again; ``com.microsoft.MatMulIntegerToFloat`` of ONNX Runtime does all three at once.
The bias that follows stays outside: it could be one instruction with the product there, and one
rounding.

Assumes: ``Mul(Cast(MatMulInteger), m)``, ``m`` a constant ``[C]``, no other reader between.
Guarantees: equal numbers: the sum is rounded to float, then multiplied, two roundings as before.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, replace_uses, tidy, unit_scale

#: Domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"


def scaled_products(graph: gs.Graph) -> Outcome:
    """Rewrite every product whose sums one constant scales."""
    outcome = Outcome()
    for mul in [node for node in graph.nodes if node.op == "Mul"]:
        scale = constant(mul.inputs[1])
        cast = producer(mul.inputs[0], "Cast")
        product = producer(cast.inputs[0], "MatMulInteger") if cast is not None else None
        if scale is None or scale.ndim != 1 or cast is None or product is None:
            continue
        if len(cast.outputs[0].outputs) != 1 or len(product.outputs[0].outputs) != 1:
            continue
        rows, weights, *zero = product.inputs
        inputs = [rows, weights, unit_scale(graph), mul.inputs[1], *zero]
        name = f"{mul.outputs[0].name}.scaled"
        scaled = insert(graph, "MatMulIntegerToFloat", name, inputs)
        scaled.inputs[0].domain = MICROSOFT
        replace_uses(graph, mul.outputs[0], scaled)
        mul.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome
