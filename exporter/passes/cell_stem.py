"""The folded stem on cells of 2x2 pixels: stride 1, half the kernel, every weight in INT8.

A convolution of stride 2 that starts on an even pixel reads whole cells. With the twelve bytes of a
cell as channels it is one of stride 1 and half the side, 8x8 becoming 4x4, whose rows lie together
in memory.

NPR's weights grow beyond INT8 at one place only: the top-left pixel of a cell collects minus the
weights of the three others. So its three colours are written into the cell ``repeats`` times more,
and their weights are shared out, ``w = w_a + w_b``. With a rest up to a multiple of four, a cell is
16 bytes where these weights stay within 254, and 20 beyond::

    rgb of (0, 0), rgb of (0, 1), rgb of (1, 0), rgb of (1, 1), repeats x rgb of (0, 0), rest

Cells are made at one place, the node ``Cells`` of the domain :data:`.channels_last.NHWC`, from the
image ``[N, 3, H, W]``; its attributes are ``repeats`` and ``channels``. Anything may stand in the
rest: the weights there are zero. :func:`lower_cells` writes the node in standard operators.

Assumes: ``Conv(Cast(Transpose(image)), DequantizeLinear(integers, 1))`` of stride 2 as
:mod:`.channels_last` leaves it, top and left padded by an even number; even image sides.
Guarantees: equal sums; the convolution reads ``Cast(Cells(image))`` and its weights are INT8.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, replace_uses, tidy
from .channels_last import NHWC, TO_LAST

#: Pixels of a cell times colours, and the largest magnitude of a weight.
_CELL, _TOP = 12, 127
#: Channels are a multiple of it: products of bytes are taken by fours.
_UNIT = 4
_FLOAT, _COLOURS = 1, 3


def cell_stem(graph: gs.Graph) -> Outcome:
    """Rewrite the convolution that reads raw pixels."""
    outcome = Outcome()
    for conv in [node for node in graph.nodes if node.op == "Conv" and node.domain == NHWC]:
        image = _pixels(graph, conv)
        weights = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(weights.inputs[0]) if weights is not None else None
        if image is None or weights is None or codes is None:
            continue
        why = _unfit(conv, codes)
        if why:
            outcome.notes.append(f"{conv.name}: {why}; it reads pixels")
            continue
        _rewrite(graph, conv, weights, image, codes.astype(np.int64))
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def cell_weights(codes: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights on cells for weights on pixels.

    Args:
        codes: integers ``[O, 3, k, k]``.

    Returns:
        INT8 ``[O, C, ceil(k / 2), ceil(k / 2)]`` and how often the top-left pixel is repeated; 0
        where nothing passes INT8.
    """
    outputs, colours, size, _ = codes.shape
    even = np.pad(codes, ((0, 0), (0, 0), (0, size % 2), (0, size % 2)))
    half = even.shape[2] // 2
    cells = even.reshape(outputs, colours, half, 2, half, 2).transpose(0, 3, 5, 1, 2, 4)
    cells = cells.reshape(outputs, _CELL, half, half)
    parts = max(1, math.ceil(int(np.abs(cells[:, :colours]).max()) / _TOP))
    shares = [(cells[:, :colours] + share) // parts for share in range(parts)]
    width = _CELL + colours * (parts - 1)
    rest = np.zeros((outputs, -width % _UNIT, half, half), dtype=np.int64)
    found = np.concatenate([shares[0], cells[:, colours:], *shares[1:], rest], axis=1)
    return found.astype(np.int8), parts - 1


def lower_cells(graph: gs.Graph) -> Outcome:
    """``Cells`` in standard operators: cells as channels, the repeated ones once more, turned."""
    outcome = Outcome()
    for node in [n for n in graph.nodes if n.op == "Cells" and n.domain == NHWC]:
        name, width = node.outputs[0].name, node.attrs["channels"]
        cells = insert(graph, "SpaceToDepth", f"{name}.pixels", [node.inputs[0]], {"blocksize": 2})
        rest = width - _CELL - _COLOURS * node.attrs["repeats"]
        again = [_first(graph, cells, _COLOURS)] * node.attrs["repeats"]
        if rest:
            again.append(_first(graph, cells, rest))
        if again:
            cells = insert(graph, "Concat", f"{name}.repeated", [cells, *again], {"axis": 1})
        last = insert(graph, "Transpose", f"{name}.last", [cells], {"perm": list(TO_LAST)})
        replace_uses(graph, node.outputs[0], last)
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _first(graph: gs.Graph, cells: gs.Tensor, count: int) -> gs.Tensor:
    """The first ``count`` channels; the top-left pixel's three colours lead."""
    name = f"{cells.name}.first{count}"
    limits = {"start": 0, "end": count, "axis": 1}
    operands = [gs.Constant(f"{name}.{k}", np.array([v])) for k, v in limits.items()]
    return insert(graph, "Slice", name, [cells, *operands])


def _pixels(graph: gs.Graph, conv: gs.Node) -> gs.Tensor | None:
    """The image, where ``conv`` reads nothing but its pixels."""
    cast = producer(conv.inputs[0], "Cast")
    turned = producer(cast.inputs[0], "Transpose") if cast is not None else None
    if turned is None or turned.inputs[0] not in graph.inputs:
        return None
    return turned.inputs[0]


def _unfit(conv: gs.Node, codes: np.ndarray) -> str:
    """Why ``conv`` is not one of cells, or nothing."""
    attrs = conv.attrs
    top, left = attrs.get("pads", [0] * 4)[:2]
    if list(attrs.get("strides", [1, 1])) != [2, 2] or top % 2 or left % 2:
        return "not of stride 2 from an even pixel"
    if attrs.get("group", 1) != 1 or list(attrs.get("dilations", [1, 1])) != [1, 1]:
        return "grouped or dilated"
    if codes.shape[1] != _COLOURS or codes.shape[2] != codes.shape[3]:
        return f"weights {list(codes.shape)} are not square ones of three colours"
    others = codes.copy()
    others[:, :, ::2, ::2] = 0
    return f"weights pass {_TOP}" if int(np.abs(others).max()) > _TOP else ""


def _rewrite(
    graph: gs.Graph, conv: gs.Node, scale: gs.Node, image: gs.Tensor, codes: np.ndarray
) -> None:
    weights, repeats = cell_weights(codes)
    size, half = codes.shape[2], weights.shape[2]
    top, left, bottom, right = conv.attrs.get("pads", [0] * 4)
    # As many outputs as before: floor((H + top + bottom - size) / 2) + 1, H even.
    ends = [
        (before + after - size) // 2 + half - before // 2
        for before, after in ((top, bottom), (left, right))
    ]
    attrs = {"repeats": repeats, "channels": int(weights.shape[1])}
    cells = insert(graph, "Cells", "stem.cells", [image], attrs)
    cells.inputs[0].domain = NHWC
    values = insert(graph, "Cast", "stem.cells.values", [cells], {"to": _FLOAT})
    stored = gs.Constant("stem.cells.weight", weights)
    conv.inputs[0] = values
    conv.inputs[1] = insert(
        graph, "DequantizeLinear", "stem.cells.weight.values", [stored, *scale.inputs[1:]]
    )
    conv.attrs.update(kernel_shape=[half, half], strides=[1, 1], pads=[top // 2, left // 2, *ends])
