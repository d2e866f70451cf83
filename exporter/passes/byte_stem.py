"""The folded stem as convolutions of bytes, so that OpenVINO runs it as UINT8 x INT8.

Weights of the folded stem pass INT8 (a corner of an NPR cell collects up to four of them), so they
are split: ``w = base * high + low``, two convolutions of the raw pixels, ``base * conv(high) +
conv(low)``, both exact, and so is their sum below 2^24. The parts are kept within 64: x86 CPUs
without VNNI add two products in INT16, which saturates above ``2 * 255 * 64``.

It is also what keeps the stem exact at all: OpenVINO multiplies the scale behind a convolution of
floats into its weights.

Assumes: ``Conv(Cast(image), DequantizeLinear(integers, 1))`` as :mod:`.fold_stem` leaves it.
Guarantees: equal sums; the convolutions read ``DequantizeLinear(image, 1)``. Other stems (RGB, full
precision) stay in float, and a note says so.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import (
    Outcome,
    constant,
    insert,
    producer,
    replace_uses,
    shared_constant,
    tidy,
    unit_scale,
)
from .codebook import INT16_PAIR, exact_base, parts_of

_PIXEL_TOP = 255


def byte_stem(graph: gs.Graph) -> Outcome:
    """Split every convolution that reads the pixels directly."""
    outcome = Outcome()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        cast = producer(conv.inputs[0], "Cast")
        weights = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(weights.inputs[0]) if weights is not None else None
        if codes is None and weights is not None:  # another convolution's, packed
            continue
        if cast is None or cast.inputs[0] not in graph.inputs or codes is None:
            if cast is not None or producer(conv.inputs[0], "Sub") is not None:
                outcome.notes.append(f"{conv.name}: not raw pixels; it runs in float")
            continue
        _split(graph, conv, cast.inputs[0], codes.astype(np.int64))
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _split(graph: gs.Graph, conv: gs.Node, image: gs.Tensor, codes: np.ndarray) -> None:
    base = exact_base("stem", codes, _PIXEL_TOP, widest=INT16_PAIR // _PIXEL_TOP)
    scale = unit_scale(graph)
    zero = shared_constant(graph, "pixel.zero", np.array(0, dtype=np.uint8))
    pixels = insert(graph, "DequantizeLinear", "stem.pixels", [image, scale, zero])
    total: gs.Tensor | None = None
    for number, (factor, part) in enumerate(parts_of(codes, base)):
        name = f"stem.part{number}"
        stored = gs.Constant(f"{name}.weight", part.astype(np.int8))
        values = insert(graph, "DequantizeLinear", f"{name}.weight.values", [stored, scale])
        acc = insert(graph, "Conv", f"{name}.acc", [pixels, values], dict(conv.attrs))
        if factor != 1:
            by = gs.Constant(f"{name}.base", np.array(factor, dtype=np.float32))
            acc = insert(graph, "Mul", f"{name}.scaled", [acc, by])
        total = acc if total is None else insert(graph, "Add", "stem.acc", [total, acc])
    replace_uses(graph, conv.outputs[0], total)
    conv.outputs.clear()
