"""The finest layers in two strips of rows, whose tensors stay in a processor's cache.

At 256 pixels the first stage of a ResNet has 64x64 pixels of 64 channels, a megabyte of floats: two
of them, read and written by every operator between two convolutions, do not fit a core's cache of
2 MB. In halves they do, and nothing is computed twice: convolutions gather the windows of the upper
rows and of the lower ones from codes that are joined again, a quarter of the bytes; all else goes
by single numbers. Measured: a tenth of that stage's time (docs/cpu.md).

Assumes: a graph channels-last, its private operators written, :mod:`.matmul_conv`'s columns in it;
behind :mod:`.row_constants`, whose rows serve both strips.
Guarantees: the same numbers; code tensors keep their names. Applies to the grid of the first
convolution by columns whose output is as large as its input, and to no other; networks without one
are left as they are.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Outcome, insert, producer, tidy
from .grids import Grid, noted_grids

_STRIPS = ("upper", "lower")
_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat")
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Clip", "Div", "GreaterOrEqual", "Max", "Min", "Mul", "Relu", "Sub",
})  # fmt: skip


def row_strips(graph: gs.Graph) -> Outcome:
    """Split the first grid; ``applied`` counts its matrix products."""
    outcome = Outcome()
    graph.toposort()
    found = _first_grid(graph)
    if found is None or any(node.name.startswith("strips/") for node in graph.nodes):
        return outcome
    split = _Strips(graph, *found)
    for node in list(graph.nodes):
        outcome.applied += split.take(node)
    split.join()
    tidy(graph)
    return outcome


def _columns_of(product: gs.Node) -> gs.Node | None:
    """The Gather that makes the rows that a matrix product reads."""
    rows = producer(product.inputs[0], "Reshape")
    return producer(rows.inputs[0], "Gather") if rows is not None else None


def _first_grid(graph: gs.Graph) -> tuple[gs.Tensor, Grid] | None:
    """Places of windows, and the grid of what is gathered there, if outputs have it too."""
    grids = noted_grids(graph)
    for product in [node for node in graph.nodes if node.op in _PRODUCTS]:
        gather = _columns_of(product)
        if gather is None or gather.inputs[1].name not in grids.same:
            continue
        return gather.inputs[1], grids.same[gather.inputs[1].name]
    return None


def _same_for_all(tensor: gs.Tensor) -> bool:
    """A constant, or one written out along a row."""
    return isinstance(tensor, gs.Constant) or producer(tensor, "Expand") is not None


class _Strips:
    """The region of one grid, taken apart node by node."""

    def __init__(self, graph: gs.Graph, places: gs.Tensor, grid: Grid) -> None:
        self.graph, self.places, self.grid = graph, places, grid
        self._known = noted_grids(graph)
        self._halves: dict[str, list[gs.Tensor]] = {}
        self._whole: dict[str, gs.Tensor] = {}
        self._taken: set[int] = set()

    def take(self, node: gs.Node) -> bool:
        """Do what ``node`` does for both strips, if it is in the region; true for a product."""
        if node.op in _PRODUCTS:
            return self._product(node)
        varying = [tensor for tensor in node.inputs if not _same_for_all(tensor)]
        inside = [tensor for tensor in varying if self._inside(tensor)]
        if node.op in _ELEMENTWISE and inside and len(inside) == len(varying):
            self._twice(node)
        return False

    def _inside(self, tensor: gs.Tensor) -> bool:
        return tensor.name in self._halves or self._known.of(tensor) == self.grid

    def _product(self, node: gs.Node) -> bool:
        gather = _columns_of(node)
        if gather is None or gather.inputs[1] is not self.places:
            return False
        rows = node.inputs[0]
        if rows.name not in self._halves:
            reshape, name = rows.inputs[0], rows.name
            self._halves[name] = [
                insert(
                    self.graph,
                    "Reshape",
                    f"{name}.{strip}",
                    [
                        insert(
                            self.graph,
                            "Gather",
                            f"{name}.{strip}.taken",
                            [gather.inputs[0], part],
                            dict(gather.attrs),
                        ),
                        reshape.inputs[1],
                    ],
                )
                for strip, part in zip(_STRIPS, self._split(self.places, 0), strict=True)
            ]
        self._twice(node)
        return True

    def _twice(self, node: gs.Node) -> None:
        out = node.outputs[0]
        halves = []
        for number, strip in enumerate(_STRIPS):
            first, *rest = node.inputs
            if node.op not in _PRODUCTS:
                rest = [self._half(tensor, number) for tensor in rest]
            inputs = [self._half(first, number), *rest]
            half = insert(self.graph, node.op, f"{out.name}.{strip}", inputs, dict(node.attrs))
            half.inputs[0].domain = node.domain
            halves.append(half)
        self._halves[out.name] = halves
        self._whole[out.name] = out
        self._taken.add(id(node))

    def _half(self, tensor: gs.Tensor, number: int) -> gs.Tensor:
        if _same_for_all(tensor):
            return tensor
        return self._split(tensor, 1)[number]

    def _split(self, tensor: gs.Tensor, axis: int) -> list[gs.Tensor]:
        """Both strips of a tensor; one from outside is cut."""
        if tensor.name not in self._halves:
            parts = [gs.Variable(f"{tensor.name}.{strip}") for strip in _STRIPS]
            attrs = {"axis": axis, "num_outputs": len(_STRIPS)}
            name = f"strips/{tensor.name}"
            self.graph.nodes.append(gs.Node("Split", name, attrs, [tensor], parts))
            self._halves[tensor.name] = parts
        return self._halves[tensor.name]

    def join(self) -> None:
        """Give what reads a whole tensor from outside both strips one below the other."""
        for name, out in self._whole.items():
            maker = out.inputs[0]
            for node in [node for node in out.outputs if node.op == "Shape"]:
                node.inputs[0] = self._halves[name][0]  # of a row, the same in both
            readers = [node for node in out.outputs if id(node) not in self._taken]
            maker.inputs.clear()
            maker.outputs.clear()
            if readers or out in self.graph.outputs:
                node = gs.Node("Concat", f"{name}/Concat", {"axis": 1}, self._halves[name], [out])
                self.graph.nodes.append(node)
