"""The head's product in blocks, so that its sum of floats loses fewer last bits.

The logit is a sum of ``C`` products. OpenVINO adds them one after the other; with the logits of
trained networks (around 30 on noise) that costs up to 2.3e-5, more than the 1e-5 that parity
allows. Summed in about ``sqrt(C)`` blocks, and the blocks then, it is at most 4e-6 (measured:
docs/openvino.md)::

    features [N, C] @ W [C, 1]  =  (features @ blocks [C, G]) @ ones [G, 1]

Column ``g`` of ``blocks`` holds the weights of block ``g`` and zeros, whose products add nothing.

Assumes: ``Gemm(features, W [1, C], b)`` with ``transB``, constants.
Guarantees: the same sum in another order.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, tidy

#: The second product's weights.
_ONES = "head.ones"


def block_head(graph: gs.Graph) -> Outcome:
    """Rewrite the linear layer with one output."""
    outcome = Outcome()
    for gemm in [node for node in graph.nodes if node.op == "Gemm"]:
        if gemm.inputs[1].name == _ONES:
            continue
        weights = constant(gemm.inputs[1])
        blocks = 1 if weights is None else _blocks(weights.shape[-1])
        if weights is None or weights.shape[0] != 1 or not gemm.attrs.get("transB") or blocks == 1:
            outcome.notes.append(f"{gemm.name}: not a linear layer of one output; left as it is")
            continue
        columns = weights.shape[1]
        apart = np.zeros((columns, blocks), dtype=np.float32)
        rows = np.arange(columns)
        apart[rows, rows * blocks // columns] = weights[0]
        table = gs.Constant("head.blocks", apart)
        sums = insert(graph, "MatMul", "head.sums", [gemm.inputs[0], table])
        gemm.inputs[0] = sums
        gemm.inputs[1] = gs.Constant(_ONES, np.ones((1, blocks), dtype=np.float32))
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _blocks(columns: int) -> int:
    """About the square root, a power of two."""
    return int(2 ** round(math.log2(columns) / 2))
