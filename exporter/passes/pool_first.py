"""The stem's max pooling moved to the integer sums, before scale and bias: a quarter of the work.

``x -> max(fl(fl(x * m) + b), 0)`` does not decrease where ``m >= 0``, so the largest of a window
is the image of the window's largest sum::

    MaxPool(Relu(acc * m + b)) = Relu(MaxPool(acc) * m + b)

and where ``m < 0``, ``acc * m = -acc * -m`` makes it positive: the channel's weights change their
sign. Nothing is rounded that was not rounded before, and nothing less.

Assumes: ``MaxPool(Relu(Add(Mul(Conv(x, DequantizeLinear(integers, 1)), m), b)))``, ``m`` and ``b``
constants a channel, each tensor between them read once.
Guarantees: the same values; multipliers of such a convolution are not negative.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, per_channel_constant, producer, replace_uses, tidy


def pool_first(graph: gs.Graph) -> Outcome:
    """Move every such pooling."""
    outcome = Outcome()
    for pool in [node for node in graph.nodes if node.op == "MaxPool"]:
        relu = producer(pool.inputs[0], "Relu")
        add = producer(relu.inputs[0], "Add") if relu is not None else None
        mul = producer(add.inputs[0], "Mul") if add is not None else None
        conv = producer(mul.inputs[0], "Conv") if mul is not None else None
        weights = producer(conv.inputs[1], "DequantizeLinear") if conv is not None else None
        if relu is None or add is None or mul is None or conv is None or weights is None:
            outcome.notes.append(f"{pool.name}: not behind a scaled convolution; left where it is")
            continue
        multiplier, bias = per_channel_constant(mul, 0), per_channel_constant(add, 0)
        codes = constant(weights.inputs[0])
        chain = (conv.outputs[0], mul.outputs[0], add.outputs[0], relu.outputs[0])
        if multiplier is None or bias is None or codes is None or _shared(chain, weights):
            outcome.notes.append(f"{pool.name}: what leads to it is read twice; left where it is")
            continue
        sign = np.where(multiplier < 0, -1, 1).reshape(-1, 1, 1, 1)
        flipped = (codes * sign.astype(codes.dtype)).astype(codes.dtype)
        weights.inputs[0] = gs.Constant(weights.inputs[0].name, flipped)
        magnitude = np.abs(multiplier).astype(np.float32).reshape(1, -1, 1, 1)
        mul.inputs[1] = gs.Constant(f"{mul.inputs[1].name}.positive", magnitude)
        pooled = insert(graph, "MaxPool", "stem.pooled", [conv.outputs[0]], dict(pool.attrs))
        mul.inputs[0] = pooled
        replace_uses(graph, pool.outputs[0], relu.outputs[0])
        pool.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _shared(chain: tuple[gs.Tensor, ...], weights: gs.Node) -> bool:
    tensors = (*chain, weights.outputs[0], weights.inputs[0])
    return any(len(tensor.outputs) != 1 for tensor in tensors)
