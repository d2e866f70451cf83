"""Which channels-last tensors are of one height and width, whatever the image.

Sides are free when a model is written, but they follow from each other: an element-wise operator
keeps them, a convolution or a pooling gives what its kernel, stride and padding say. Two tensors
with one grid are of one size; what depends on the size alone is computed once for all of them.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import constant, producer
from .channels_last import CHANNELS, NHWC

#: Input's grid, then stride and ``padding - kernel`` of both sides, ceiling or floor.
Grid = tuple[object, ...]
_KEPT = frozenset({
    "Add", "Cast", "Clip", "Div", "Max", "Min", "Mul", "MultiThreshold", "PRelu", "Relu", "Sub",
})  # fmt: skip


#: Key under which a graph keeps its grids for passes that come when it is written otherwise.
_NOTED = "qmdd_grids"


class Grids:
    """The grids of a graph whose convolutions and poolings are private nodes, in their order.

    Attributes:
        same: by the name of a tensor of places (:mod:`.columns`), the grid of the image and of what
            a convolution makes there, where it is one.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self._known: dict[str, Grid] = {}
        self.same: dict[str, Grid] = {}
        for node in graph.nodes:
            grid = self._of(node)
            for tensor in node.outputs:
                self._known[tensor.name] = grid or (tensor.name,)

    def of(self, tensor: gs.Tensor) -> Grid:
        """The grid of ``tensor``; one of its own where nothing is known of it."""
        return self._known.get(tensor.name, (tensor.name,))

    def _of(self, node: gs.Node) -> Grid | None:
        if node.domain == NHWC and node.op in ("Conv", "MaxPool", "AveragePool"):
            return self._windowed(node)
        joined = node.op == "Concat" and node.attrs.get("axis") == CHANNELS
        if node.op not in _KEPT and not joined:
            return None
        varying = [tensor for tensor in node.inputs if isinstance(tensor, gs.Variable)]
        return self.of(varying[0]) if varying else None

    def _windowed(self, node: gs.Node) -> Grid | None:
        kernel = node.attrs.get("kernel_shape")
        if node.op == "Conv":
            scale = producer(node.inputs[1], "DequantizeLinear")
            weight = constant(scale.inputs[0] if scale is not None else node.inputs[1])
            kernel = None if weight is None else weight.shape[2:]
        if kernel is None:
            return None
        pads = node.attrs.get("pads", [0, 0, 0, 0])
        dilations = node.attrs.get("dilations", [1, 1])
        strides = tuple(node.attrs.get("strides", [1, 1]))
        before = self.of(node.inputs[0])
        beyond = tuple(
            pads[side] + pads[side + 2] - (kernel[side] - 1) * dilations[side] for side in (0, 1)
        )
        if strides == (1, 1) and beyond == (0, 0):
            return before
        # ceil((n + b) / s) = floor((n + b - 1) / s) + 1 is what a whole stride of no overlap gives.
        ceil = bool(node.attrs.get("ceil_mode", 0))
        if ceil:
            beyond = tuple(b + s - 1 for b, s in zip(beyond, strides, strict=True))
        return (before, strides, beyond)


def noted_grids(graph: gs.Graph) -> Grids:
    """The grids of ``graph`` as they were when this was first asked."""
    known: Grids | None = graph.__dict__.get(_NOTED)
    if known is None:
        known = graph.__dict__[_NOTED] = Grids(graph)
    return known
