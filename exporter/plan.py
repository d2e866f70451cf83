"""The plan: for every convolution and matrix product of a lowered model, how it is meant to run.

It is read off the graph that was written, not off what the passes believe to have done, and travels
in the bundle's manifest: an audit on a device compares it with the engine that was built there,
without the ``onnx`` package.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from .errors import ExportError
from .run_shapes import shapes_by_run

if TYPE_CHECKING:
    import onnx

#: Side of the image for which shapes and multiply-adds are counted, the paper's.
PLAN_SIDE = 256
#: Products of bytes, whose shapes inference does not find.
_OF_BYTES = ("MatMulInteger", "MatMulIntegerToFloat")
_PRODUCTS = ("Conv", "MatMul", "Gemm", *_OF_BYTES)
#: What may stand between a stored weight and its convolution.
_UNPACKING = frozenset({
    "Add", "BitShift", "BitwiseAnd", "Cast", "Clip", "Concat", "DequantizeLinear", "Div", "Floor",
    "Gather", "Mod", "Mul", "QuantizeLinear", "Reshape", "Slice", "Sub", "Transpose",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PlannedLayer:
    """A convolution or matrix product.

    Attributes:
        name: of its node in the model.
        op: ``Conv``, ``MatMul``, ``Gemm``, ``MatMulInteger`` or ``MatMulIntegerToFloat``.
        compute: ``int8`` (a product of bytes, or both operands through DequantizeLinear of INT8),
            ``float16``,
            ``float32``.
        weight_storage: ``int8`` (``int16``, ``int32``), ``int4``, ``int2`` (two codes to an INT4
            nibble), ``packed`` (narrower than a byte, in bytes) or ``float32``.
        weights: their number.
        weight_bytes: as they are stored in the model.
        kernel, stride: of a convolution, else empty.
        groups: 1, or the channels of a depthwise convolution.
        in_shape, out_shape: for one image of ``side x side`` pixels.
        multiply_adds: for that image.
    """

    name: str
    op: str
    compute: str
    weight_storage: str
    weights: int
    weight_bytes: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    multiply_adds: int

    @property
    def depthwise(self) -> bool:
        """Whether every channel is convolved with its own kernel."""
        return self.groups > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> PlannedLayer:
        """Read what :meth:`to_dict` wrote; unknown keys are ignored.

        Raises:
            ExportError: a key is missing or of another type.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = plain.get(field.name)
            if isinstance(value, list) and all(type(item) is int for item in value):
                value = tuple(value)
            expected = {"str": str, "int": int}.get(str(field.type), tuple)
            if type(value) is not expected:
                raise ExportError(f"plan: {field.name} is {value!r}; export the bundle again")
            values[field.name] = value
        return cls(**values)


def planned_layers(model: onnx.ModelProto, side: int = PLAN_SIDE) -> list[PlannedLayer]:
    """All convolutions and matrix products of ``model``, in its order.

    Args:
        side: of the square image for which shapes are inferred, pixels.

    Raises:
        ExportError: a shape that cannot be inferred.
    """
    graph = _Shapes(model, side)
    return [_planned(graph, node) for node in model.graph.node if node.op_type in _PRODUCTS]


class _Shapes:
    """A model with all its shapes known, for one image of a given side."""

    def __init__(self, model: onnx.ModelProto, side: int) -> None:
        self.makers = {out: node for node in model.graph.node for out in node.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name for value in model.graph.input}
        self._shapes = infer_shapes(model, side)
        if any(node.op_type in _OF_BYTES for node in model.graph.node):
            self._shapes.update(shapes_by_run(model, _kinds(model), side))

    def shape(self, name: str) -> tuple[int, ...]:
        """Dims of a tensor."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        if name not in self._shapes:
            raise ExportError(f"{name}: its shape cannot be inferred; export the model again")
        return self._shapes[name]


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of what products read and write."""
    from onnx import TensorProto

    kinds: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in _PRODUCTS:
            sums = node.op_type == "MatMulInteger"
            of_bytes = node.op_type in _OF_BYTES
            kinds[node.input[0]] = TensorProto.UINT8 if of_bytes else TensorProto.FLOAT
            kinds[node.output[0]] = TensorProto.INT32 if sums else TensorProto.FLOAT
    return kinds


def infer_shapes(model: onnx.ModelProto, side: int) -> dict[str, tuple[int, ...]]:
    """Dims of every tensor of ``model`` for one image of ``side x side`` pixels."""
    import onnx
    from onnx import shape_inference

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        names = {"N": 1, "H": side, "W": side}
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_value = names[dim.dim_param]
    made = {name for node in fixed.graph.node for name in node.output}
    known: dict[str, tuple[int, ...]] = {}
    # Values are followed only where a shape hangs on them: with packed weights that takes seconds.
    for follow_values in (False, True):
        if made <= known.keys():
            break
        inferred = shape_inference.infer_shapes(fixed, data_prop=follow_values)
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                known[value.name] = tuple(dim.dim_value for dim in dims)
    return known


def _planned(graph: _Shapes, node: onnx.NodeProto) -> PlannedLayer:
    from onnx import helper

    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    weight, out = graph.shape(node.input[1]), graph.shape(node.output[0])
    groups = int(attrs.get("group", 1))
    count = math.prod(weight)
    # A weight meets every position of the output's plane (of a product: every row) once.
    positions = math.prod(out[2:]) if node.op_type == "Conv" else math.prod(out[:-1])
    storage, stored = _storage(graph, node.input[1])
    return PlannedLayer(
        name=node.name,
        op=node.op_type,
        compute=_compute(graph, node),
        weight_storage=storage,
        weights=count,
        weight_bytes=stored,
        kernel=tuple(weight[2:]) if node.op_type == "Conv" else (),
        stride=tuple(attrs.get("strides", (1, 1))) if node.op_type == "Conv" else (),
        groups=groups,
        in_shape=graph.shape(node.input[0]),
        out_shape=out,
        multiply_adds=count * positions,
    )


def _compute(graph: _Shapes, node: onnx.NodeProto) -> str:
    """How TensorRT's and OpenVINO's rules for Q/DQ let ``node`` run."""
    if node.op_type in _OF_BYTES:
        return "int8"
    data, weight = (graph.makers.get(name) for name in node.input[:2])
    if data is not None and weight is not None:
        ops = data.op_type, weight.op_type
        if ops == ("DequantizeLinear", "DequantizeLinear"):
            codes = graph.makers.get(data.input[0])
            # Pixels are bytes as they come (OpenVINO); codes are made by QuantizeLinear.
            if data.input[0] in graph.inputs or (codes and codes.op_type == "QuantizeLinear"):
                return "int8"
    if data is not None and data.op_type == "Cast" and node.op_type == "MatMul":
        return "float16"
    return "float32"


def _storage(graph: _Shapes, name: str) -> tuple[str, int]:
    """How the weights behind tensor ``name`` are stored, and in how many bytes."""
    from onnx import TensorProto

    narrow = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.UINT2: 2}
    found, waiting, seen = [], [name], set()
    halved = False
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        if tensor in graph.constants:
            found.append(graph.constants[tensor])
            continue
        maker = graph.makers.get(tensor)
        if maker is not None and maker.op_type in _UNPACKING:
            halved |= maker.op_type == "Floor"
            waiting.extend(filter(None, maker.input))
    largest = max(found, key=lambda tensor: math.prod(tensor.dims), default=None)
    if largest is None:
        return "float32", 0
    size = sum(len(t.raw_data) for t in found if math.prod(t.dims) * 8 >= math.prod(largest.dims))
    if largest.data_type == TensorProto.FLOAT:
        return "float32", size
    if largest.data_type == TensorProto.INT4:  # of one constant for many layers: its own share
        weights = math.prod(graph.shape(name))
        return ("int2", -(-weights // 4)) if halved else ("int4", -(-weights // 2))
    if largest.data_type in narrow or largest.data_type == TensorProto.UINT8:
        return "packed", size
    wide = {TensorProto.INT16: "int16", TensorProto.INT32: "int32"}
    return wide.get(largest.data_type, "int8"), size
