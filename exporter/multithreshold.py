"""The one operator of our own: ``qmdd::MultiThreshold(x, thresholds) -> codes``.

``x`` float32 ``[N, C, H, W]``, ``thresholds`` float32 ``[C or 1, n]`` ascending along its last
axis; ``codes = sum_i [x >= thresholds_i]`` (paper Eq. 3 and 11), float32 integers ``0 .. n``. The
name and meaning are FINN's and QONNX's. A function body in standard operators travels with every
model that holds it, so that any ONNX runtime can load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

DOMAIN = "qmdd"
OPSET = 1


def function_proto(opset: int) -> onnx.FunctionProto:
    """``qmdd::MultiThreshold`` in standard operators of ``opset``, which must be the model's."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, values: list[int]) -> onnx.NodeProto:
        tensor = numpy_helper.from_array(np.array(values, dtype=np.int64), name)
        return helper.make_node("Constant", [], [name], value=tensor)

    nodes = [
        constant("channel_axis", [2]),
        constant("table_axes", [0, 3, 4]),
        helper.make_node("Unsqueeze", ["x", "channel_axis"], ["wide"]),
        helper.make_node("Unsqueeze", ["thresholds", "table_axes"], ["table"]),
        helper.make_node("GreaterOrEqual", ["wide", "table"], ["reached"]),
        helper.make_node("Cast", ["reached"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "channel_axis"], ["codes"], keepdims=0),
    ]
    return helper.make_function(
        DOMAIN,
        "MultiThreshold",
        ["x", "thresholds"],
        ["codes"],
        nodes,
        [helper.make_opsetid("", opset)],
        attributes=["layer"],
    )


def add_function(model: onnx.ModelProto) -> None:
    """Give ``model`` the function and the opset import of its domain, once."""
    from onnx import helper

    if not any(function.domain == DOMAIN for function in model.functions):
        (opset,) = (item.version for item in model.opset_import if not item.domain)
        model.functions.append(function_proto(opset))
    if not any(item.domain == DOMAIN for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
