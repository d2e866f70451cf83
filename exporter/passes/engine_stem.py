"""The folded stem on INT8 pixels, so that TensorRT runs it as INT8 x INT8.

Raw pixels, 0..255, do not fit INT8, and TensorRT knows neither zero points nor UINT8 codes (it
takes UINT8 for INT8 with a warning, and saturates). So the stem reads ``pixel - 128``. Its sums
stay what they were without any correction: NPR (paper Eq. 1-2) takes from each pixel the corner of
its 2x2 cell, so the folded kernel sums to zero over every cell, a constant taken from all pixels
drops out, and so it does at the border, because sides and upper padding are even and a cell lies
inside or outside of the image as a whole.

Assumes: ``Conv(Cast(image), DequantizeLinear(INT16, 1))`` as :mod:`.fold_stem` leaves it.
Guarantees: equal sums; the convolution reads ``DequantizeLinear(QuantizeLinear(pixel - 128))``.
Other stems (RGB, full precision) stay in float, and a note says so.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, tidy, unit_scale

#: What is taken from a pixel: the middle of its range.
PIXEL_SHIFT = 128


def engine_stem(graph: gs.Graph) -> Outcome:
    """Shift the pixels of every convolution that reads them directly."""
    outcome = Outcome()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        cast = producer(conv.inputs[0], "Cast")
        if cast is None or cast.inputs[0] not in graph.inputs:
            continue
        weights = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(weights.inputs[0]) if weights is not None else None
        if codes is None or not _cells_sum_to_zero(codes.astype(np.int64), conv.attrs):
            continue
        middle = gs.Constant("stem.middle", np.array(PIXEL_SHIFT, dtype=np.float32))
        zero = gs.Constant("stem.zero", np.array(0, dtype=np.int8))
        shifted = insert(graph, "Sub", "stem.shifted", [conv.inputs[0], middle])
        scale = unit_scale(graph)
        pixels = insert(graph, "QuantizeLinear", "stem.pixels", [shifted, scale, zero])
        values = insert(graph, "DequantizeLinear", "stem.values", [pixels, scale, zero])
        conv.inputs[0] = values
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    elif not any(tensor.name == "stem.pixels" for tensor in graph.tensors().values()):
        outcome.notes.append("no folded NPR stem: the first layer runs in float")
    return outcome


def _cells_sum_to_zero(kernel: np.ndarray, attrs: dict[str, list[int]]) -> bool:
    """Whether a constant drops out of ``Conv``: see the module's text."""
    pads, strides = attrs.get("pads", [0, 0, 0, 0]), attrs.get("strides", [1, 1])
    if any(value % 2 for value in (*pads[:2], *strides)):
        return False
    height, width = kernel.shape[2:]
    even = np.pad(kernel, ((0, 0), (0, 0), (0, height % 2), (0, width % 2)))
    cells = even.reshape(*even.shape[:2], even.shape[2] // 2, 2, even.shape[3] // 2, 2)
    return not cells.sum(axis=(3, 5)).any()
