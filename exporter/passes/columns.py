"""The columns of a convolution on bytes: each output's window as one row of a matrix.

``[N, H, W, C]`` becomes ``[N, H', W', k * k * C]``: window rows, then columns, then channels. The
padded image is a list of pixels, and one Gather takes each window's from it; where they lie depends
on the sides alone, so it is computed once for all convolutions of one size. Measured beside Slices
and a Concat, rows and columns apart, and shifted Pads: half the time of the next best, whatever the
size (docs/cpu.md). A 1x1 window is the tensor itself, or one Slice of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from .base import insert
from .grids import Grid

_END = np.iinfo(np.int64).max


class Window(NamedTuple):
    """A convolution's window; all pairs are of height and width, ``pads`` as ONNX has them."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @classmethod
    def of(cls, conv: gs.Node, kernel: tuple[int, int]) -> Window:
        """That of a ``Conv`` node with weights of this size."""
        height, width = conv.attrs.get("strides", [1, 1])
        rows, columns = conv.attrs.get("dilations", [1, 1])
        top, left, bottom, right = conv.attrs.get("pads", [0, 0, 0, 0])
        return cls(kernel, (height, width), (rows, columns), (top, left, bottom, right))


class Columns:
    """Makes columns, and the places of the windows once for each size of image."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._places: dict[tuple[Grid, Window], gs.Tensor] = {}

    def of(
        self, x: gs.Tensor, name: str, window: Window, fill: int, channels: int, grid: Grid
    ) -> gs.Tensor:
        """Rows of the windows of ``x``, UINT8 ``[N, H, W, C]``.

        Args:
            name: of the result; other tensors are called after it.
            fill: the byte that stands around the image.
            channels: ``C``.
            grid: of ``x``.
        """
        graph = self._graph
        if any(window.pads):
            top, left, bottom, right = window.pads
            pads = _whole(f"{name}.pads", [0, top, left, 0, 0, bottom, right, 0])
            around = gs.Constant(f"{name}.fill", np.array(fill, dtype=np.uint8))
            x = insert(graph, "Pad", f"{name}.padded", [x, pads, around], {"mode": "constant"})
        if window.kernel == (1, 1):
            return x if window.strides == (1, 1) else self._some(x, name, window.strides)
        key = (grid, window)
        if key not in self._places:
            self._places[key] = places(graph, x, name, window)
        size = window.kernel[0] * window.kernel[1] * channels
        flat, rows = (_whole(f"{name}.{n}", v) for n, v in
                      (("flat", [0, -1, channels]), ("shape", [0, 0, 0, size])))  # fmt: skip
        pixels = insert(graph, "Reshape", f"{name}.pixels", [x, flat])
        taken = insert(graph, "Gather", f"{name}.taken", [pixels, self._places[key]], {"axis": 1})
        return insert(graph, "Reshape", name, [taken, rows])

    def places_of(self, grid: Grid, window: Window) -> gs.Tensor | None:
        """Where windows on images of this grid lie, if that was computed."""
        return self._places.get((grid, window))

    def _some(self, x: gs.Tensor, name: str, strides: tuple[int, int]) -> gs.Tensor:
        """Every so many rows and columns."""
        limits = (("start", [0, 0]), ("end", [_END, _END]), ("axes", [1, 2]), ("step", strides))
        operands = [_whole(f"{name}.{n}", list(v)) for n, v in limits]
        return insert(self._graph, "Slice", name, [x, *operands])


def places(graph: gs.Graph, x: gs.Tensor, name: str, window: Window) -> gs.Tensor:
    """Where the pixels of each window lie in the list of the padded image's, ``[H', W', k * k]``.

    Pixel ``(r, c)`` of an image of width ``w`` is number ``r * w + c``; a window at ``(i, j)``
    reads ``r = i * stride + row * dilation``, likewise ``c``.
    """

    def node(op: str, what: str, *inputs: gs.Tensor, **attrs: int) -> gs.Tensor:
        return insert(graph, op, f"{name}.{what}", list(inputs), attrs)

    def number(what: str, value: int | list[int]) -> gs.Constant:
        return _whole(f"{name}.{what}", value)

    sides = node("Shape", "sides", x, start=1, end=3)
    first = []
    for side, what in enumerate(("rows", "columns")):
        count = node("Gather", f"{what}.count", sides, number(f"{what}.side", side), axis=0)
        reach = number(f"{what}.reach", (window.kernel[side] - 1) * window.dilations[side])
        end = node("Sub", f"{what}.end", count, reach)
        step = number(f"{what}.step", window.strides[side])
        first.append(node("Range", what, number(f"{what}.start", 0), end, step))
    width = node("Gather", "width", sides, number("width.side", 1), axis=0)
    down, right = np.indices(window.kernel).reshape(2, -1)
    below = node("Mul", "below", number("down", (down * window.dilations[0]).tolist()), width)
    taps = node("Add", "taps", below, number("right", (right * window.dilations[1]).tolist()))
    starts = node("Mul", "starts", first[0], width)
    tall = node("Unsqueeze", "tall", starts, number("tall.axes", [1, 2]))
    wide = node("Unsqueeze", "wide", first[1], number("wide.axes", [1]))
    return node("Add", "places", tall, node("Add", "row", wide, taps))


def _whole(name: str, value: int | list[int]) -> gs.Constant:
    return gs.Constant(name, np.array(value, dtype=np.int64))
