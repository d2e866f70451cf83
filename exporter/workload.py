"""What a network does at one size, kernel by kernel: operations, and what is read and written.

Derived from an ONNX graph of ours, whatever it was lowered for. How nodes become kernels is an
assumption, and there are two of them:

``fused``
    a convolution or matrix product, and a pooling, is a kernel of its own. Everything between them
    (scale, bias, shortcut, activation, thresholds, concatenation) is one kernel wherever it hangs
    together: it reads each of its inputs once and writes each of its outputs once. So do TensorRT
    and OpenVINO. An operation belongs to the last kernel that can hold it, so that
    ``alpha * x``, which only the sum behind a convolution reads, is not written and read again.
``single``
    every node is a kernel, as ONNX Runtime has it on a CPU.

What is computed from constants alone (weights being unpacked and dequantised) is done when the
network is loaded. A view (Reshape, Flatten, ...) costs nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ExportError
from .plan import PlannedLayer, infer_shapes, planned_layers
from .read_model import model_of_file, of_ours

if TYPE_CHECKING:
    import onnx

FUSIONS = ("fused", "single")

#: Kinds of layers, in the order in which they are shown.
KINDS = ("stem", "conv", "depthwise", "head", "epilogue", "elementwise", "pooling")

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
#: They move numbers and compute none.
_MOVES = frozenset({"Concat", "Expand", "Gather", "Pad", "Resize", "Slice", "Split", "Tile"}) | {
    "Transpose"
}
_SHAPES = frozenset({"Constant", "ConstantOfShape", "Range", "Shape", "Size"})
#: Kinds of tensors that are codes: a convolution reads a byte each, and its step is elsewhere.
_CODES = frozenset({"codes", "pixels"})
#: What a quantizer is made of: a kernel with one of these is an epilogue.
_QUANTIZING = frozenset({"Greater", "GreaterOrEqual", "MultiThreshold", "QuantizeLinear"})
#: Shape inference of a hostile graph is bounded by the number of its nodes.
_MAX_NODES = 200_000


class Tensor(NamedTuple):
    """A tensor that a kernel reads or writes, for one image.

    ``kind``: ``codes`` of a quantizer, ``pixels`` (the image), ``flags`` (comparisons), ``floats``
    otherwise. ``outside``: it comes from, or goes, out of the network.
    """

    name: str
    elements: int
    kind: str
    outside: bool = False


@dataclasses.dataclass(frozen=True)
class Layer:
    """One kernel, for one image.

    Attributes:
        name: of the node, or of the codes that the kernel makes, or of its first node.
        kind: one of :data:`KINDS`.
        multiply_adds: of a convolution or matrix product.
        weights: number of its weights; biases and thresholds are ``constants``.
        stored_bytes: what the file holds for the weights.
        unpacked: the weights are widened from 4 bits at every inference, not when loaded.
        compute: ``int8`` where codes meet integer weights, else ``float16`` or ``float32``.
        constants: numbers that go along with every inference: biases, slopes, thresholds.
        reads: activations that it reads.
        writes: activations that it writes.
        elementwise: operations on single numbers, by operator.
    """

    name: str
    kind: str
    multiply_adds: int = 0
    weights: int = 0
    stored_bytes: int = 0
    unpacked: bool = False
    compute: str = "float32"
    constants: int = 0
    reads: tuple[Tensor, ...] = ()
    writes: tuple[Tensor, ...] = ()
    elementwise: Mapping[str, int] = dataclasses.field(default_factory=dict)


def layers_of(model: onnx.ModelProto, side: int = 256, fusion: str = "fused") -> list[Layer]:
    """The kernels of ``model`` for one image of ``side`` pixels, in an order in which they can run.

    Args:
        model: of ours; it is not changed.
        side: of the image, pixels.
        fusion: one of :data:`FUSIONS`.

    Raises:
        ExportError: not a model of ours, or its shapes at this side cannot be found.
    """
    if fusion not in FUSIONS:
        raise ExportError(f"no fusion {fusion!r}; there are {', '.join(FUSIONS)}")
    return _Graph(model, side).layers(fused=fusion == "fused")


def layers_of_file(path: Path, side: int = 256, fusion: str = "fused") -> list[Layer]:
    """:func:`layers_of` for a file.

    Raises:
        ExportError: as there; or the file is no ONNX model.
    """
    with of_ours(path):
        return layers_of(model_of_file(path), side, fusion)


class _Graph:
    """A graph with the shape of every tensor, what is constant, and who makes and reads what."""

    def __init__(self, model: onnx.ModelProto, side: int) -> None:
        graph = model.graph
        if len(graph.node) > _MAX_NODES:
            raise ExportError(f"{len(graph.node):,} nodes; no network of ours has so many")
        self.image, self.result = _ends(model)
        self.stored = {t.name: t for t in graph.initializer}
        self.shapes = _shapes(model, side)
        self.planned = {layer.name: layer for layer in planned_layers(model, side)}
        self.constant = set(self.stored)
        self.alias: dict[str, str] = {}
        self.maker: dict[str, onnx.NodeProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            given = [name for name in node.input if name]
            if node.op_type in _SHAPES or all(name in self.constant for name in given):
                self.constant.update(node.output)
                for name in node.output:
                    self.maker[name] = node
            elif node.op_type in _VIEWS:
                self.alias[node.output[0]] = self.real(node.input[0])
            else:
                self.nodes.append(node)
                for name in node.output:
                    self.maker[name] = node
        self.result = self.real(self.result)
        self.kinds = self._kinds()
        self.maker_of_product = {n.name: n for n in self.nodes if n.op_type in _PRODUCTS}

    def real(self, name: str) -> str:
        """The tensor that ``name`` is a view of."""
        return self.alias.get(name, name)

    def elements(self, name: str) -> int:
        """Number of elements of a tensor."""
        shape = self.shapes.get(name)
        if shape is None:
            raise ExportError(f"the shape of {name!r} cannot be found; export the bundle again")
        return math.prod(shape)

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """What a node reads that is not constant, views looked through."""
        return [self.real(name) for name in node.input if name and name not in self.constant]

    def _kinds(self) -> dict[str, str]:
        kinds = {self.image: "pixels"}
        for node in self.nodes:
            given = [kinds.get(name, "floats") for name in self.activations(node)]
            if node.op_type in ("QuantizeLinear", "MultiThreshold"):
                kind = "codes"
            elif node.op_type in ("Greater", "GreaterOrEqual"):
                kind = "flags"
            elif len(set(given)) == 1 and _keeps(node, given[0]):
                kind = given[0]
            else:
                kind = "floats"
            kinds.update(dict.fromkeys(node.output, kind))
        return kinds

    def layers(self, *, fused: bool) -> list[Layer]:
        """Group the nodes and describe each group."""
        if fused:
            self._see_through_dequantize()
        groups = self._groups(fused=fused)
        readers: dict[str, set[int]] = {}
        for index, group in enumerate(groups):
            for node in group:
                for name in self.activations(node):
                    readers.setdefault(name, set()).add(index)
        stem = self._before_any_product()
        return [self._layer(group, readers, index, stem) for index, group in enumerate(groups)]

    def _before_any_product(self) -> set[str]:
        """Names of the nodes that no product comes before: the stem, and what prepares pixels."""
        behind: set[str] = set()
        found = set()
        for node in self.nodes:
            after = any(name in behind for name in self.activations(node))
            if not after:
                found.add(node.name)
            if after or node.op_type in _PRODUCTS:
                behind.update(node.output)
        return found

    def _see_through_dequantize(self) -> None:
        """Let who reads dequantised codes read the codes: the step is in the scale behind it."""
        kept = []
        for node in self.nodes:
            source = self.real(node.input[0])
            if node.op_type == "DequantizeLinear" and self.kinds.get(source) in _CODES:
                self.alias[node.output[0]] = source
            else:
                kept.append(node)
        for name in list(self.alias):
            while self.alias[name] in self.alias:
                self.alias[name] = self.alias[self.alias[name]]
        self.nodes = kept

    def _groups(self, *, fused: bool) -> list[list[onnx.NodeProto]]:
        if not fused:
            return [[node] for node in self.nodes]
        stages = self._stages()
        parent = list(range(len(self.nodes)))

        def root(index: int) -> int:
            while parent[index] != index:
                parent[index] = parent[parent[index]]
                index = parent[index]
            return index

        # Two nodes are in one kernel if they are in one stage and share a tensor: one makes it and
        # the other reads it, or both read it.
        seen: dict[tuple[str, int], int] = {}
        for index, node in enumerate(self.nodes):
            if _barrier(node, self):
                continue
            for name in (*self.activations(node), *node.output):
                key = (name, stages[index])
                parent[root(index)] = root(seen.setdefault(key, index))
        groups: dict[int, list[onnx.NodeProto]] = {}
        for index, node in enumerate(self.nodes):
            groups.setdefault(root(index), []).append(node)
        order = {id(node): index for index, node in enumerate(self.nodes)}
        stage_of = {id(group): stages[order[id(group[0])]] for group in groups.values()}
        # A kernel between products comes before the products that read it.
        return sorted(
            groups.values(),
            key=lambda group: (stage_of[id(group)], _barrier(group[0], self), order[id(group[0])]),
        )

    def _stages(self) -> list[int]:
        """For each node the last stage in which it can run; a product ends the stage it reads."""
        early: dict[str, int] = {}
        first: list[int] = []
        for node in self.nodes:
            stage = max((early.get(name, 0) for name in self.activations(node)), default=0)
            first.append(stage)
            early.update(dict.fromkeys(node.output, stage + _barrier(node, self)))
        wanted: dict[str, int] = {}
        late = list(first)
        for index in reversed(range(len(self.nodes))):
            node = self.nodes[index]
            if not _barrier(node, self):
                stages = [wanted[name] for name in node.output if name in wanted]
                late[index] = max(first[index], min(stages, default=first[index]))
            for name in self.activations(node):
                wanted[name] = min(wanted.get(name, late[index]), late[index])
        return late

    def _layer(
        self, group: list[onnx.NodeProto], readers: dict[str, set[int]], index: int, stem: set[str]
    ) -> Layer:
        made = {name for node in group for name in node.output if name}
        read = dict.fromkeys(name for node in group for name in self.activations(node))
        reads = [name for name in read if name not in made]
        writes = [
            name
            for name in dict.fromkeys(n for node in group for n in node.output if n)
            if name == self.result or readers.get(name, set()) - {index}
        ]
        head = group[0]
        codes = [name for name in writes if self.kinds[name] == "codes"]
        return Layer(
            name=codes[0] if codes and head.op_type not in _PRODUCTS else head.name,
            kind=self._kind(group, stem),
            constants=sum(self._constants(node) for node in group),
            reads=tuple(self._tensor(name) for name in reads),
            writes=tuple(self._tensor(name) for name in writes),
            elementwise=dict(self._elementwise(group)),
            **self._product(self.planned[head.name]) if head.name in self.planned else {},
        )

    def _tensor(self, name: str) -> Tensor:
        kind = self.kinds.get(name, "floats")
        return Tensor(name, self.elements(name), kind, name in (self.image, self.result))

    def _kind(self, group: list[onnx.NodeProto], stem: set[str]) -> str:
        head = group[0]
        if all(node.name in stem for node in group):
            return "stem"
        if head.op_type in _PRODUCTS:
            # The head is the one product behind the mean over the image.
            if head.op_type == "Gemm":
                return "head"
            return "depthwise" if self.planned[head.name].depthwise else "conv"
        if _barrier(head, self):
            return "pooling"
        return "epilogue" if _QUANTIZING & {node.op_type for node in group} else "elementwise"

    def _product(self, planned: PlannedLayer) -> dict[str, Any]:
        node = self.maker_of_product[planned.name]
        compute = planned.compute
        source = self.maker.get(node.input[0])
        # The canonical form has its quantizers as they are traced; a target's have Q and DQ.
        if source is not None and source.op_type == "Sub":
            source = self.maker.get(source.input[0])
        weights = self.maker.get(node.input[1])
        if source is not None and source.op_type == "MultiThreshold" and weights is not None:
            compute = "int8"
        return {
            "multiply_adds": planned.multiply_adds,
            "weights": planned.weights,
            "stored_bytes": planned.weight_bytes,
            "unpacked": self._unpacked(node.input[1]),
            "compute": "float32" if planned.depthwise else compute,
        }

    def _unpacked(self, name: str) -> bool:
        """Whether 4-bit weights reach a DequantizeLinear: no builder folds these."""
        todo = [name]
        while todo:
            maker = self.maker.get(todo.pop())
            if maker is None:
                continue
            held = self.stored.get(maker.input[0])
            if maker.op_type == "DequantizeLinear" and held is not None:
                return held.data_type in _four_bits()
            todo.extend(n for n in maker.input if n)
        return False

    def _constants(self, node: onnx.NodeProto) -> int:
        """Numbers that stand beside the data; a product's weights are counted elsewhere."""
        given = node.input[2:] if node.op_type in _PRODUCTS else node.input
        if node.op_type in _MOVES and not self._lookup(node):
            return 0
        return sum(self.elements(n) for n in given if n in self.constant and n in self.shapes)

    def _elementwise(self, group: Iterable[onnx.NodeProto]) -> Counter[str]:
        found: Counter[str] = Counter()
        for node in group:
            if node.op_type in _PRODUCTS or (node.op_type in _MOVES and not self._lookup(node)):
                continue
            elements = self.elements(node.output[0])
            if _barrier(node, self) or node.op_type.startswith("Reduce"):
                elements = max(elements, self._pooled(node, elements))
            elif node.op_type == "MultiThreshold":
                elements *= self.shapes[node.input[1]][-1]
            found[node.op_type] += elements
        return found

    def _lookup(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads a constant table at computed places."""
        return node.op_type == "Gather" and node.input[0] in self.constant

    def _pooled(self, node: onnx.NodeProto, elements: int) -> int:
        """Numbers that a pooling or reduction takes in."""
        window = next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), None)
        return elements * math.prod(window) if window else self.elements(self.real(node.input[0]))


def _keeps(node: onnx.NodeProto, kind: str) -> bool:
    """Whether what a node makes of a tensor of ``kind`` is of that kind too."""
    if node.op_type in _MOVES:
        return True
    return (node.op_type == "Sub" and kind == "codes") or (
        node.op_type == "DequantizeLinear" and kind in _CODES
    )


def _four_bits() -> set[int]:
    from onnx import TensorProto

    return {TensorProto.INT4, TensorProto.UINT4}


def _barrier(node: onnx.NodeProto, graph: _Graph) -> bool:
    """Whether a node is a kernel of its own: a product, a pooling, a mean over whole images."""
    if node.op_type in _PRODUCTS or node.op_type in _POOLS:
        return True
    if not node.op_type.startswith("Reduce"):
        return False
    source = graph.shapes.get(graph.real(node.input[0]), ())
    out = graph.shapes.get(node.output[0], ())
    return len(source) == 4 and math.prod(out) <= math.prod(source[:2])


def _ends(model: onnx.ModelProto) -> tuple[str, str]:
    inputs, outputs = model.graph.input, model.graph.output
    if len(inputs) != 1 or len(outputs) < 1 or inputs[0].name != "image":
        raise ExportError("not a model of ours: it must have one input, image; export it again")
    if len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise ExportError("not a model of ours: its input must be [N, 3, H, W]; export it again")
    return inputs[0].name, outputs[0].name


def _shapes(model: onnx.ModelProto, side: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor for one image of ``side`` pixels."""
    try:
        shapes = infer_shapes(model, side)
    except Exception as error:  # onnx raises its own C++ errors
        text = " ".join(str(error).split())[:300]
        raise ExportError(f"its shapes at {side} pixels cannot be found: {text}") from error
    return {**{t.name: tuple(t.dims) for t in model.graph.initializer}, **shapes}
