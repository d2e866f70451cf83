"""Fold NPR into the stem: one integer convolution of the raw pixels (DESIGN 3.4).

NPR (paper Eq. 1-2) takes from each pixel the top-left one of its 2x2 cell. With a stem of even
stride, output ``p`` reads residual rows ``2p - pad + j``; each is a pixel minus its cell's corner,
so the stem is a convolution of the pixels themselves, its kernel grown upwards to the first cell's
corner::

    W'[j, i] += W[j, i]        W'[j - j % 2, i - i % 2] -= W[j, i]

with ``j, i`` counted from that corner. 7x7 becomes 8x8, 3x3 becomes 4x4; the sums are the same
integers, so nothing is rounded.

Assumes: ``Conv(Sub(x, Resize2(Slice2(x))), DequantizeLinear(integers, 1))``, even image sides.
Guarantees: no NPR node is left before that convolution; equal sums below 2^24.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, producer, refuse, tidy

_PIXEL_TOP = 255
_EXACT_LIMIT = 2**24


def fold_stem(graph: gs.Graph) -> Outcome:
    """Apply the fold to every convolution that reads an NPR residual."""
    outcome = Outcome()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        source = _npr_source(conv)
        if source is None:
            continue
        weights = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(weights.inputs[0]) if weights is not None else None
        if weights is None or codes is None:
            outcome.notes.append(f"{conv.name}: stem weights are not integers; NPR stays explicit")
            continue
        stride, pad = conv.attrs["strides"], conv.attrs["pads"]
        if any(s % 2 for s in stride) or len(set(pad)) != 1:
            why = f"pads {pad} differ" if len(set(pad)) != 1 else f"stride {stride} is not even"
            outcome.notes.append(f"{conv.name}: {why}; NPR stays explicit")
            continue
        folded, grow = fold_npr_kernel(codes.astype(np.int64), pad[0])
        largest = int(np.abs(folded).reshape(folded.shape[0], -1).sum(1).max()) * _PIXEL_TOP
        if largest >= _EXACT_LIMIT:
            raise refuse("stem", "its sums pass 2^24 once NPR is folded in", "use 8-bit weights")
        weights.inputs[0] = gs.Constant("stem.weight", folded.astype(np.int16))
        conv.inputs[0] = source
        conv.attrs["pads"] = [pad[0] + grow, pad[1] + grow, pad[2], pad[3]]
        conv.attrs["kernel_shape"] = list(folded.shape[2:])
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def fold_npr_kernel(kernel: np.ndarray, pad: int) -> tuple[np.ndarray, int]:
    """The kernel on pixels for ``kernel`` on NPR residuals.

    Args:
        kernel: integers ``[C_out, C_in, k, k]``.
        pad: padding of the convolution on all sides.

    Returns:
        int64 ``[C_out, C_in, k + g, k + g]`` and ``g`` (0 or 1): top and left padding grow by it.
    """
    grow = pad % 2
    size = kernel.shape[2] + grow
    folded = np.zeros((*kernel.shape[:2], size, size), dtype=np.int64)
    for row in range(kernel.shape[2]):
        for column in range(kernel.shape[3]):
            r, c = row + grow, column + grow
            folded[:, :, r, c] += kernel[:, :, row, column]
            folded[:, :, r - r % 2, c - c % 2] -= kernel[:, :, row, column]
    return folded, grow


def _npr_source(conv: gs.Node) -> gs.Tensor | None:
    """The pixels behind an NPR residual that ``conv`` reads, or ``None``."""
    sub = producer(conv.inputs[0], "Sub")
    resize = producer(sub.inputs[1], "Resize") if sub is not None else None
    if sub is None or resize is None or resize.attrs.get("mode") != "nearest":
        return None
    scales = constant(resize.inputs[2])
    if scales is None or scales.tolist() != [1.0, 1.0, 2.0, 2.0]:
        return None
    axes: set[int] = set()
    tensor = resize.inputs[0]
    while (cut := producer(tensor, "Slice")) is not None:
        starts, steps = constant(cut.inputs[1]), constant(cut.inputs[4])
        axis = constant(cut.inputs[3])
        if starts is None or steps is None or axis is None:
            return None
        if starts.tolist() != [0] * len(axis) or steps.tolist() != [2] * len(axis):
            return None
        axes.update(int(a) for a in axis.reshape(-1))
        tensor = cut.inputs[0]
    return tensor if axes == {2, 3} and tensor is sub.inputs[0] else None
