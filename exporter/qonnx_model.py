"""What makes an ONNX file a QONNX one: fixed shapes, its operators' domain, data type annotations.

QONNX (and FINN) want the shape of every tensor known, one batch and one size of image. The
annotation of a tensor's data type is QONNX's own, under the key ``finn_datatype``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import ExportError
from .passes.qonnx_operators import DOMAIN

if TYPE_CHECKING:
    import onnx

#: Version of QONNX's operators that is written.
QONNX_OPSET = 1
#: Shape of the image in the file: FPGA flows build for one.
IMAGE_SHAPE = (1, 3, 256, 256)
_KEY = "finn_datatype"


def finish_qonnx(model: onnx.ModelProto, types: Mapping[str, str]) -> None:
    """Complete a lowered model: domain, shapes, and the data ``types`` of tensors, in place."""
    from onnx import helper

    model.opset_import.append(helper.make_opsetid(DOMAIN, QONNX_OPSET))
    fix_shapes(model, IMAGE_SHAPE)
    names = {t.name for t in model.graph.initializer}
    names.update(name for node in model.graph.node for name in (*node.input, *node.output))
    for tensor, kind in sorted(types.items()):
        if tensor in names:
            note = model.graph.quantization_annotation.add(tensor_name=tensor)
            note.quant_parameter_tensor_names.add(key=_KEY, value=kind)


def fix_shapes(model: onnx.ModelProto, image: tuple[int, int, int, int]) -> None:
    """Write the shape of every tensor for images of this shape, as floats, in place.

    Raises:
        ExportError: a shape that cannot be inferred.
    """
    from onnx import TensorProto, helper, shape_inference

    graph = model.graph
    (entry,), outputs = graph.input, [value.name for value in graph.output]
    del graph.value_info[:]
    entry.CopyFrom(helper.make_tensor_value_info(entry.name, TensorProto.FLOAT, image))
    del graph.output[1:]
    graph.output[0].CopyFrom(
        helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, [image[0]])
    )

    plain = type(model)()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        if node.domain == DOMAIN:  # both keep their first input's shape
            del node.input[1:], node.attribute[:]
            node.op_type, node.domain = "Identity", ""
    inferred = shape_inference.infer_shapes(plain, data_prop=True)
    known = {value.name: value for value in inferred.graph.value_info}
    made = [name for node in graph.node for name in node.output if name != outputs[0]]
    for name in made:
        dims = known[name].type.tensor_type.shape.dim if name in known else []
        if name not in known or not all(dim.HasField("dim_value") for dim in dims):
            raise ExportError(f"{name}: its shape cannot be inferred; export for --dialect onnx")
        graph.value_info.append(known[name])
