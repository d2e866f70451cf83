"""The graph channels-last: every image tensor ``[N, H, W, C]``, a pixel's codes side by side.

A convolution is then one matrix product of rows that are already in memory, and what belongs to a
channel, a constant ``[C]``, runs along the last axis.

Operators that know no axis stay as they are, those that name one get another number (Concat, Slice,
Split, Gather, Pad, means). Convolution and pooling have no such form in ONNX: they become ``Conv``,
``MaxPool`` and ``AveragePool`` of the private domain :data:`NHWC`, with the attributes that they
had, reading and writing ``[N, H, W, C]``; weights of a convolution stay ``[O, I, k, k]``. Passes
that follow write these in standard operators, or in one of their own; :mod:`.transpose_rest` does
it for whatever they leave. ``MultiThreshold`` keeps its table ``[C or 1, n]`` and says ``axis=3``.

The image itself, and what is made of its pixels before the first convolution, stays as it is; a
convolution that can be turned reads it through a Transpose of bytes.

What cannot be turned stands between Transposes, and a note says so. A Transpose is put only where a
tensor is read in the form that it does not have, so no two of them follow each other.

Assumes: a graph behind :mod:`.pool_head`; rank 4 wherever a convolution or a pooling reads.
Guarantees: the same numbers, at other places; names of tensors are kept, so ``<layer>.codes`` is
channels-last. A graph without quantizers is left as it is: runtimes lay out float convolutions
themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, replace_uses, tidy

#: Domain of the operators that this pass leaves: private, none of them is ever written to a file.
NHWC = "qmdd.nhwc"
#: Axes of ``[N, H, W, C]`` by their place in ``[N, C, H, W]``, and ways there and back.
LAST_AXIS = (0, 3, 1, 2)
TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
#: The axis of channels in this form.
CHANNELS = 3
#: Operators that treat every element alike.
_ELEMENTWISE = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "PRelu",
    "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Sqrt", "Sub",
    "Sum", "Tanh", "Where", "Xor",
})  # fmt: skip
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")


def channels_last(graph: gs.Graph) -> Outcome:
    """Turn the graph; ``applied`` counts the convolutions and poolings."""
    outcome = Outcome()
    quantizers = [node for node in graph.nodes if node.op == "MultiThreshold"]
    if not quantizers:
        outcome.notes.append("no quantizers; the graph stays channels-first")
    if not quantizers or any("axis" in node.attrs for node in quantizers):
        return outcome
    graph.toposort()
    turn = _Turn(graph)
    for node in list(graph.nodes):
        if not turn.node(node):
            outcome.notes.append(f"{node.name}: {node.op} stays channels-first")
    turn.outputs()
    outcome.applied = sum(node.domain == NHWC for node in graph.nodes)
    tidy(graph)
    return outcome


class _Turn:
    """Turns nodes one after the other, in the order in which they run.

    ``last`` holds ids of the tensors that are channels-last; the others are as they were.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.last: set[int] = set()
        self._other: dict[int, gs.Tensor] = {}  # the other form of a tensor, by its id
        self._constants: dict[int, gs.Constant] = {}
        self._by_op: dict[str, Callable[[gs.Node], bool]] = {
            "Conv": self._conv,
            "MaxPool": self._pool,
            "AveragePool": self._pool,
            "MultiThreshold": self._thresholds,
            "GlobalAveragePool": self._global_mean,
            "Concat": self._concat,
            "Split": self._axis,
            "Gather": self._gather,
            "Slice": self._slice,
            "Pad": self._pad,
            "Resize": self._resize,
            "Flatten": self._flatten,
            **dict.fromkeys(_REDUCTIONS, self._reduce),
            **dict.fromkeys(_ELEMENTWISE, self._elementwise),
        }

    def node(self, node: gs.Node) -> bool:
        """Turn ``node``; false if it had to be left between Transposes."""
        if node.domain not in (None, "") and node.op != "MultiThreshold":
            turned = False
        else:
            turned = self._by_op.get(node.op, lambda _: False)(node)
        if turned:
            return True
        read = [index for index, tensor in enumerate(node.inputs) if id(tensor) in self.last]
        for index in read:
            node.inputs[index] = self._to_first(node.inputs[index])
        return not read

    def outputs(self) -> None:
        """Give the graph's outputs the form that they had."""
        for tensor in list(self.graph.outputs):
            if id(tensor) in self.last:
                replace = self._to_first(tensor)
                self.graph.outputs = [replace if t is tensor else t for t in self.graph.outputs]

    def _is_last(self, tensor: gs.Tensor) -> bool:
        return id(tensor) in self.last

    def _done(self, node: gs.Node) -> bool:
        for tensor in node.outputs:
            self.last.add(id(tensor))
            if isinstance(tensor, gs.Variable):
                tensor.shape = None
        return True

    def _to_last(self, tensor: gs.Tensor) -> gs.Tensor:
        if id(tensor) in self.last:
            return tensor
        node = producer(tensor, "Cast", "Sub")
        if node is None or id(tensor) in self._other or not _of_pixels(self.graph, node):
            return self._transposed(tensor, TO_LAST, "last")
        # Pixels are turned as bytes; what is made of each of them comes after that.
        rest = [self._constant(operand) for operand in node.inputs[1:]]
        operands = [self._to_last(node.inputs[0]), *rest]
        turned = insert(self.graph, node.op, f"{tensor.name}.last", operands, dict(node.attrs))
        self._other[id(tensor)] = turned
        return turned

    def _to_first(self, tensor: gs.Tensor) -> gs.Tensor:
        return self._transposed(tensor, TO_FIRST, "first")

    def _transposed(self, tensor: gs.Tensor, perm: list[int], suffix: str) -> gs.Tensor:
        if id(tensor) not in self._other:
            out = gs.Variable(f"{tensor.name}.{suffix}", dtype=tensor.dtype)
            name = f"{tensor.name}.{suffix}/Transpose"
            node = gs.Node("Transpose", name, {"perm": list(perm)}, [tensor], [out])
            self.graph.nodes.append(node)
            self._other[id(tensor)] = out
        return self._other[id(tensor)]

    def _constant(self, tensor: gs.Constant) -> gs.Constant:
        """A constant operand of an element-wise operator, its channels last: ``[C]`` if it can."""
        if id(tensor) not in self._constants:
            value = np.asarray(tensor.values)
            turned = value
            if value.ndim:
                wide = value.reshape((1,) * (4 - value.ndim) + value.shape)
                turned = wide.transpose(TO_LAST)
                while turned.ndim > 1 and turned.shape[0] == 1:
                    turned = turned[0]
            copy = np.ascontiguousarray(turned).reshape(turned.shape)
            self._constants[id(tensor)] = gs.Constant(f"{tensor.name}.last", copy)
        return self._constants[id(tensor)]

    def _new(self, node: gs.Node, what: str, value: list[int]) -> gs.Constant:
        name = f"{node.outputs[0].name}.{what}"
        return gs.Constant(name, np.array(value, dtype=np.int64))

    # One method an operator; each gives false, and changes nothing, where it cannot be turned.

    def _conv(self, node: gs.Node) -> bool:
        maker = producer(node.inputs[1], "DequantizeLinear")
        weight = constant(maker.inputs[0] if maker is not None else node.inputs[1])
        if weight is None or weight.ndim != 4 or not _explicit(node):
            return False
        return self._private(node)

    def _pool(self, node: gs.Node) -> bool:
        two = len(node.attrs["kernel_shape"]) == 2
        return two and len(node.outputs) == 1 and _explicit(node) and self._private(node)

    def _private(self, node: gs.Node) -> bool:
        node.inputs[0] = self._to_last(node.inputs[0])
        node.domain = NHWC
        return self._done(node)

    def _thresholds(self, node: gs.Node) -> bool:
        node.inputs[0] = self._to_last(node.inputs[0])
        node.attrs["axis"] = CHANNELS
        return self._done(node)

    def _elementwise(self, node: gs.Node) -> bool:
        operands = [tensor for tensor in node.inputs if not tensor.is_empty()]
        varying = [tensor for tensor in operands if not isinstance(tensor, gs.Constant)]
        ranks = [np.asarray(t.values).ndim for t in operands if isinstance(t, gs.Constant)]
        if not varying or not all(map(self._is_last, varying)) or max(ranks, default=0) > 4:
            return False
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                node.inputs[index] = self._constant(tensor)
            elif not tensor.is_empty():
                node.inputs[index] = self._to_last(tensor)
        return self._done(node)

    def _axis(self, node: gs.Node) -> bool:
        if not self._is_last(node.inputs[0]):
            return False
        node.inputs[0] = self._to_last(node.inputs[0])
        node.attrs["axis"] = LAST_AXIS[node.attrs.get("axis", 0)]
        return self._done(node)

    def _concat(self, node: gs.Node) -> bool:
        if not all(map(self._is_last, node.inputs)):
            return False
        node.inputs = [self._to_last(tensor) for tensor in node.inputs]
        node.attrs["axis"] = LAST_AXIS[node.attrs["axis"]]
        return self._done(node)

    def _gather(self, node: gs.Node) -> bool:
        index = constant(node.inputs[1])
        return index is not None and index.ndim == 1 and self._axis(node)

    def _slice(self, node: gs.Node) -> bool:
        starts = constant(node.inputs[1])
        given = len(node.inputs) > 3 and not node.inputs[3].is_empty()
        axes = constant(node.inputs[3]) if given else None
        if not self._is_last(node.inputs[0]) or starts is None or (given and axes is None):
            return False
        read = range(starts.size) if axes is None else [int(axis) for axis in axes.reshape(-1)]
        turned = self._new(node, "axes", [LAST_AXIS[axis] for axis in read])
        node.inputs[0] = self._to_last(node.inputs[0])
        node.inputs = [*node.inputs[:3], turned, *node.inputs[4:]]
        return self._done(node)

    def _pad(self, node: gs.Node) -> bool:
        pads = constant(node.inputs[1])
        given = len(node.inputs) > 3 and not node.inputs[3].is_empty()
        if not self._is_last(node.inputs[0]) or pads is None or given:
            return False
        turned = pads.reshape(2, 4)[:, TO_LAST].reshape(-1).tolist()
        node.inputs[0] = self._to_last(node.inputs[0])
        node.inputs[1] = self._new(node, "pads", turned)
        return self._done(node)

    def _resize(self, node: gs.Node) -> bool:
        scales = constant(node.inputs[2]) if len(node.inputs) == 3 else None
        nearest = node.attrs.get("mode", "nearest") == "nearest" and "axes" not in node.attrs
        if not self._is_last(node.inputs[0]) or scales is None or not nearest:
            return False
        node.inputs[0] = self._to_last(node.inputs[0])
        name = f"{node.outputs[0].name}.scales"
        node.inputs[2] = gs.Constant(name, np.ascontiguousarray(scales[TO_LAST]))
        return self._done(node)

    def _global_mean(self, node: gs.Node) -> bool:
        node.op = "ReduceMean"
        node.inputs = [self._to_last(node.inputs[0]), self._new(node, "axes", [1, 2])]
        node.attrs = {"keepdims": 1}
        return self._done(node)

    def _reduce(self, node: gs.Node) -> bool:
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if not self._is_last(node.inputs[0]) or axes is None or not axes.size:
            return False
        turned = sorted(LAST_AXIS[int(axis)] for axis in axes.reshape(-1))
        kept = [axis for axis in LAST_AXIS if axis not in turned]
        if not node.attrs.get("keepdims", 1) and kept != sorted(kept):
            return False
        node.inputs[0] = self._to_last(node.inputs[0])
        node.inputs[1] = self._new(node, "axes", turned)
        return self._done(node) if node.attrs.get("keepdims", 1) else True

    def _flatten(self, node: gs.Node) -> bool:
        """Behind a mean over both sides there is nothing to flatten: ``[N, C]`` comes of itself."""
        mean = producer(node.inputs[0], "ReduceMean")
        axes = constant(mean.inputs[1]) if mean is not None else None
        if mean is None or axes is None or id(node.inputs[0]) not in self.last:
            return False
        alone = len(node.inputs[0].outputs) == 1 and node.attrs.get("axis", 1) == 1
        if not alone or axes.tolist() != [1, 2]:
            return False
        mean.attrs["keepdims"] = 0
        self.last.discard(id(node.inputs[0]))
        replace_uses(self.graph, node.outputs[0], node.inputs[0])
        node.outputs.clear()
        return True


def _of_pixels(graph: gs.Graph, node: gs.Node) -> bool:
    """Whether ``node`` makes each number of one of the image's and a constant."""
    if any(not isinstance(operand, gs.Constant) for operand in node.inputs[1:]):
        return False
    source = producer(node.inputs[0], "Cast", "Sub")
    return node.inputs[0] in graph.inputs or (source is not None and _of_pixels(graph, source))


def _explicit(node: gs.Node) -> bool:
    """Whether paddings are written down."""
    return bool(node.attrs.get("auto_pad", "NOTSET") == "NOTSET")
