"""What the portable form promises, looked up in the graph that was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ExportError
from .passes.scaled_products import MICROSOFT

if TYPE_CHECKING:
    import onnx

_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat")


def check_portable_graph(model: onnx.ModelProto, *, microsoft: bool = False) -> None:
    """Assert that ``model`` is of operators that every runtime has, and its products of constants.

    Args:
        microsoft: ONNX Runtime's own operators are allowed.

    Raises:
        ExportError: a promise that the graph does not keep, with the node's name.
    """
    makers = {out: node for node in model.graph.node for out in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    domains = ("", MICROSOFT) if microsoft else ("",)
    for node in model.graph.node:
        if node.domain not in domains:
            raise ExportError(f"{node.name}: an operator of {node.domain} is left in the graph")
        if node.op_type == "Log":
            raise ExportError(f"{node.name}: a logarithm is left in the graph")
        if node.op_type in _PRODUCTS and not _of_constants(node.input[1], makers, constants):
            raise ExportError(f"{node.name}: its weights do not fold to a constant")


def _of_constants(name: str, makers: dict[str, onnx.NodeProto], constants: set[str]) -> bool:
    """Whether a tensor comes of constants alone, none of them through DequantizeLinear."""
    if not name or name in constants:
        return True
    node = makers.get(name)
    if node is None or node.op_type == "DequantizeLinear":
        return False
    return all(_of_constants(operand, makers, constants) for operand in node.input)
