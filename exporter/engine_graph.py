"""What TensorRT makes a float layer of without a word, found in the graph before it is built.

Each rule is one that the builder was seen to break silently (or to refuse late and unclearly); its
message names the node and the way out. :func:`check_engine_graph` holds every lowered model to
them; the audit after a build looks for the same from the other side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import ExportError

if TYPE_CHECKING:
    import onnx

#: Operators that an engine's graph may hold.
OPERATORS = frozenset({
    "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DequantizeLinear", "Flatten", "Floor",
    "Gather", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "MatMul", "MaxPool", "Mul",
    "PRelu", "Pad", "QuantizeLinear", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sigmoid",
    "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze",
})  # fmt: skip
#: A DequantizeLinear is looked for through so many of these, which only move numbers.
_BETWEEN = 4
_MOVING = frozenset({"Cast", "Concat", "Identity", "Pad", "Reshape", "Slice", "Transpose"})
#: Data types from here on (FP8, INT4, ...) have no plain NumPy form.
_NARROW = 17


def check_engine_graph(model: onnx.ModelProto) -> None:
    """Refuse a lowered model that an engine would not run as planned.

    Raises:
        ExportError: names each fault.
    """
    faults = engine_faults(model)
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise ExportError(f"not fit for TensorRT: {'; '.join(faults[:3])}{more}")


def engine_faults(model: onnx.ModelProto) -> list[str]:
    """A line for each place where TensorRT would leave INT8, or refuse the graph."""
    return _Graph(model).faults()


class _Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        self.nodes = list(model.graph.node)
        self.makers = {out: node for node in self.nodes for out in node.output}
        self.types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.values = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if np.prod(tensor.dims, dtype=np.int64) <= 1 << 16 and tensor.data_type < _NARROW
        }

    def faults(self) -> list[str]:
        found: list[str] = []
        for node in self.nodes:
            if node.op_type not in OPERATORS or node.domain:
                found.append(f"{node.name}: {node.op_type} is no operator that an engine can hold")
            elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                found.extend(f"{node.name}: {fault}" for fault in self._scale_faults(node))
            elif node.op_type == "Conv":
                found.extend(f"{node.name}: {fault}" for fault in self._operand_faults(node))
        return found

    def _scale_faults(self, node: onnx.NodeProto) -> list[str]:
        from onnx import TensorProto

        found = []
        scale = self.values.get(node.input[1])
        if scale is None:
            found.append("its scale is no constant")
        elif not (scale > 0).all():
            found.append("a scale is not positive, which TensorRT refuses; clamp it")
        zero = node.input[2] if len(node.input) > 2 else ""
        if zero and np.any(self.values.get(zero, np.ones(1))):
            found.append("its zero point is not 0, which TensorRT refuses; shift the codes")
        kinds = {self.types.get(name) for name in (zero, node.input[0]) if name}
        if TensorProto.UINT8 in kinds:
            found.append("UINT8 codes, which TensorRT takes for INT8 and saturates at 127")
        if TensorProto.INT32 in kinds:
            found.append("INT32 codes, which TensorRT refuses; hold them in two INT8 parts")
        if scale is not None and scale.size > 1:
            found.extend(self._vector_faults(node))
        return found

    def _vector_faults(self, node: onnx.NodeProto) -> list[str]:
        """Scales by channel or block belong to weights, along their first axis."""
        attrs = {a.name: a.i for a in node.attribute}
        if attrs.get("block_size"):
            return []
        if node.op_type == "QuantizeLinear" or node.input[0] not in self.types:
            return ["activations scaled by channel make the convolution a float one; use one scale"]
        if attrs.get("axis", 1) != 0:
            axis = attrs.get("axis", 1)
            return [
                f"weights scaled along axis {axis} make the convolution a float one; use axis 0"
            ]
        return []

    def _operand_faults(self, conv: onnx.NodeProto) -> list[str]:
        found = []
        for what, name in zip(("activations", "weights"), conv.input, strict=False):
            maker = self.makers.get(name)
            if maker is None or maker.op_type == "DequantizeLinear":
                continue
            behind = self._dequantised_behind(maker)
            if len(behind) > 1 and maker.op_type == "Concat":
                scales = {self._scale(node) for node in behind}
                if len(scales) > 1:
                    found.append(
                        "its activations join codes of different scales, which makes it a float "
                        "convolution; quantise again behind the Concat"
                    )
                    continue
            if behind and maker.op_type != "Concat":
                found.append(
                    f"{maker.op_type} stands between DequantizeLinear and its {what}, which makes "
                    "it a float convolution; put it before QuantizeLinear"
                )
        return found

    def _scale(self, node: onnx.NodeProto) -> tuple[float, ...]:
        return tuple(self.values.get(node.input[1], np.zeros(0)).reshape(-1).tolist())

    def _dequantised_behind(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The ``DequantizeLinear`` that lead to ``node`` by operators that only move numbers."""
        found, waiting = [], [(node, 0)]
        while waiting:
            here, depth = waiting.pop()
            for name in here.input:
                maker = self.makers.get(name)
                if maker is None:
                    continue
                if maker.op_type == "DequantizeLinear":
                    found.append(maker)
                elif depth < _BETWEEN and maker.op_type in _MOVING:
                    waiting.append((maker, depth + 1))
        return found
