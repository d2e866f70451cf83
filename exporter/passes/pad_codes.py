"""Codes that a convolution reads minus a constant, read as they are: no zero point is needed.

With zero ``z`` a convolution reads ``code - z`` and pads with 0, which is code ``z``. So it may
read the codes themselves, padded with ``z``; the rest is a constant of each output channel::

    conv(code - z, W) = conv(pad(code, z), W) - z * sum(W)

All of these are whole numbers below 2^24. OpenVINO (2026.4) crashes on UINT8 codes with a zero
point in a model of free image size.

Assumes: ``Conv(Sub(MultiThreshold(...), z), DequantizeLinear(integers, 1))``, ``z`` whole.
Guarantees: equal sums; no convolution reads a difference of codes.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, refuse, replace_uses, tidy


def pad_codes(graph: gs.Graph) -> Outcome:
    """Rewrite every convolution of centred codes."""
    outcome = Outcome()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        centred = producer(conv.inputs[0], "Sub")
        zero = constant(centred.inputs[1]) if centred is not None else None
        if centred is None or zero is None or producer(centred.inputs[0], "MultiThreshold") is None:
            continue
        weights = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(weights.inputs[0]) if weights is not None else None
        level = float(zero.reshape(-1)[0])
        if codes is None or zero.size != 1 or not level.is_integer():
            raise refuse(conv.name, f"its codes are read minus {zero}", "export for onnx")
        _read_plain(graph, conv, centred.inputs[0], codes.astype(np.int64), int(level))
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _read_plain(
    graph: gs.Graph, conv: gs.Node, codes: gs.Tensor, weights: np.ndarray, level: int
) -> None:
    out = conv.outputs[0]
    source: gs.Tensor = codes
    if any(conv.attrs.get("pads", [0])):
        top, left, bottom, right = conv.attrs["pads"]
        name = f"{out.name}.padded"
        pads = gs.Constant(f"{name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
        fill = gs.Constant(f"{name}.fill", np.array(level, dtype=np.float32))
        source = insert(graph, "Pad", name, [codes, pads, fill], {"mode": "constant"})
    attrs = {**conv.attrs, "pads": [0, 0, 0, 0]}
    raw = insert(graph, "Conv", f"{out.name}.raw", [source, conv.inputs[1]], attrs)
    offset = -level * weights.reshape(weights.shape[0], -1).sum(1)
    constant_sum = gs.Constant(f"{out.name}.offset", offset.reshape(1, -1, 1, 1).astype(np.float32))
    replace_uses(graph, out, insert(graph, "Add", f"{out.name}.centred", [raw, constant_sum]))
    conv.outputs.clear()
