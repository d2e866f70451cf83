"""Which operations may stand before a quantizer, if two runtimes are to give the same codes.

A code is a decision about one float. It is the same in every runtime only if that float is, to the
bit; so what leads to a quantizer may hold nothing but

* sums of integers below 2^24: convolutions of codes, or of pixels, with integer weights;
* operations that IEEE 754 defines to the bit: one addition, one product, one comparison at a time;
* operations that only move or choose numbers.

A convolution of floats, a mean over many numbers, an exponential: each runtime has its own order or
its own polynomial for these, and once in some ten thousand codes the last bit decides. Behind the
last quantizer everything is allowed; there it is only the logit's last bits.

This is looked up in the graph that tracing yields, whose nodes know which layer they come from.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import numpy as np

from .errors import ExportError

if TYPE_CHECKING:
    import onnx

#: One IEEE operation an element, or none.
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual",
    "LeakyRelu", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "PRelu", "Relu", "Round",
    "Sign", "Sqrt", "Sub", "Where",
})  # fmt: skip
#: Operations that move numbers or choose among them.
_MOVING = frozenset({
    "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "DequantizeLinear", "Expand",
    "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool", "Pad", "Range",
    "Reshape", "Shape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
})  # fmt: skip
#: Those through which whole numbers stay whole, and as small as they were.
_INTEGER = _MOVING | {"Abs", "Clip", "Max", "Min", "Neg", "Relu", "Sub"}
#: Most addends of an average pooling: even one runtime adds four in two orders (measured: ONNX
#: Runtime at opset 17 and at opset 21).
_POOLED = 2

_ADVICE = {
    "Conv": "make it a QuantConv2d behind an ActivationChain: a convolution of floats is summed in "
    "another order by each runtime",
    "ConvTranspose": "use nearest up-sampling and a QuantConv2d",
    "Gemm": "move the linear layer behind the last quantizer, or make it a 1x1 QuantConv2d",
    "MatMul": "move the product behind the last quantizer, or make it a 1x1 QuantConv2d",
    "BatchNormalization": "let a QuantConv2d bring its own batch-norm, which is folded into the "
    "scale behind its sums, or write it as one product and one sum a channel",
    "AveragePool": "pool rows and columns apart, windows of 1x2 and 2x1, or add the members one "
    "after the other",
    "Resize": "up-sample by nearest neighbours",
}
_OTHERWISE = "move it behind the last quantizer, or put comparisons, sums and products in its place"
_SCOPES = "pkg.torch.onnx.name_scopes"


def check_exact(model: onnx.ModelProto) -> None:
    """Refuse a traced ``model`` whose codes no other runtime would reproduce.

    Raises:
        ExportError: names each operation, its layer, and the way out.
    """
    found = TracedGraph(model).inexact()
    if not found:
        return
    lines = [f"{layer}: {op} before a quantizer" for op, layer in found]
    more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
    advice = "; ".join(dict.fromkeys(_ADVICE.get(op, _OTHERWISE) for op, _ in found))
    raise ExportError(f"not exact: {', '.join(lines[:3])}{more}; {advice}")


class TracedGraph:
    """A traced graph, with what is known of its tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        self.nodes = list(model.graph.node)
        self.makers = {out: node for node in self.nodes for out in node.output}
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.inputs = {value.name for value in model.graph.input}
        self._integral: dict[str, bool] = {}

    def inexact(self) -> list[tuple[str, str]]:
        """``(operation, layer)`` of every node that leads to a quantizer and is not exact."""
        leading = self.leading()
        return [
            (node.op_type, layer_of(node))
            for node in self.nodes
            if any(out in leading for out in node.output) and not self._exact(node)
        ]

    def leading(self) -> set[str]:
        """Every tensor that some quantizer's input depends on."""
        waiting = [node.input[0] for node in self.nodes if node.op_type == "MultiThreshold"]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.makers:
                waiting.extend(filter(None, self.makers[name].input))
        return seen

    def weight(self, name: str) -> float | None:
        """The largest sum of magnitudes of a filter, where the weights ``name`` are known."""
        held, scale = name, 1.0
        node = self.makers.get(name)
        if node is not None and node.op_type == "DequantizeLinear":
            held = node.input[0]
            factor = self.constants.get(node.input[1])
            scale = float(np.abs(factor).max()) if factor is not None else float("nan")
        value = self.constants.get(held)
        if value is None:
            return None
        return (
            float(np.abs(value.astype(np.float64)).reshape(value.shape[0], -1).sum(1).max()) * scale
        )

    def _exact(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "MultiThreshold":
            return True
        if node.op_type == "Conv":
            return all(self.integral(name) for name in node.input if name)
        if node.op_type == "AveragePool":
            kernel = next(a.ints for a in node.attribute if a.name == "kernel_shape")
            return int(np.prod(kernel)) <= _POOLED
        if node.op_type == "Resize":
            modes = [a.s.decode() for a in node.attribute if a.name == "mode"]
            return modes in ([], ["nearest"])
        return node.op_type in _ELEMENTWISE or node.op_type in _MOVING

    def integral(self, name: str) -> bool:
        """Whether a tensor holds whole numbers whatever the image."""
        if name not in self._integral:
            self._integral[name] = False  # a cycle cannot be; a deep graph can
            self._integral[name] = self._find_integral(name)
        return self._integral[name]

    def _find_integral(self, name: str) -> bool:
        if name in self.inputs:
            return True
        if name in self.constants:
            value = self.constants[name]
            return value.dtype.kind in "iub" or bool((value == np.round(value)).all())
        node = self.makers.get(name)
        if node is None:
            return False
        if node.op_type == "MultiThreshold":
            return True
        if node.op_type == "Cast":
            return self.integral(node.input[0])
        if node.op_type == "Resize":
            return self._exact(node) and self.integral(node.input[0])
        return node.op_type in _INTEGER and all(self.integral(i) for i in node.input if i)


def layer_of(node: onnx.NodeProto) -> str:
    """The dotted name of the module that ``node`` comes from."""
    for prop in node.metadata_props:
        if prop.key == _SCOPES:
            try:
                scopes = ast.literal_eval(prop.value)
            except (ValueError, SyntaxError):
                break
            if len(scopes) > 1:  # the last one is the operation's own
                return str(scopes[-2]) or "the network itself"
    return node.name or node.op_type
