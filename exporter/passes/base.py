"""What a pass is: one rewrite of a graph, with its assumption, its guarantee and its reasons.

A pass takes a graphsurgeon graph, changes it in place and says how often it applied and, where it
did not, why. Run a second time it applies nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..errors import ExportError


@dataclasses.dataclass
class Outcome:
    """``applied``: number of rewrites; ``notes``: a line for each place that was left, and why."""

    applied: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def modified(self) -> bool:
        """Whether the graph is another than before."""
        return self.applied > 0


Pass = Callable[[gs.Graph], Outcome]


def producer(tensor: gs.Tensor, *op_types: str) -> gs.Node | None:
    """The node that makes ``tensor``, if it is of one of ``op_types``."""
    if len(tensor.inputs) != 1:
        return None
    node = tensor.inputs[0]
    return node if not op_types or node.op in op_types else None


def constant(tensor: gs.Tensor) -> np.ndarray | None:
    """The value of a constant tensor, else ``None``."""
    return np.asarray(tensor.values) if isinstance(tensor, gs.Constant) else None


def per_channel_constant(node: gs.Node, data: int) -> np.ndarray | None:
    """The constant operand of a two-input node, flat, if it varies along channels only.

    ``data`` is the index of the operand that is not the constant.
    """
    value = constant(node.inputs[1 - data])
    if value is None:
        return None
    shape = [1] * (4 - value.ndim) + list(value.shape)
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != [1, 1]:
        return None
    return value.reshape(-1)


def centred_uses(tensor: gs.Tensor) -> tuple[float, list[gs.Node]]:
    """What ``Sub(tensor, zero)`` nodes take from a code tensor, if that is all that reads it.

    Returns:
        ``zero`` and the nodes; ``0`` and none where the codes are read as they are.
    """
    zeros: set[float] = set()
    for node in tensor.outputs:
        value = constant(node.inputs[1]) if node.op == "Sub" and len(node.inputs) == 2 else None
        if value is None or value.size != 1 or node.inputs[0] is not tensor:
            return 0.0, []
        zeros.add(float(value.reshape(())))
    if len(zeros) != 1:
        return 0.0, []
    return zeros.pop(), list(tensor.outputs)


def codes_behind(tensor: gs.Tensor) -> gs.Node | None:
    """The ``MultiThreshold`` whose codes, padded or minus a constant if so, ``tensor`` is."""
    pad = producer(tensor, "Pad")
    if pad is not None:
        tensor = pad.inputs[0]
    sub = producer(tensor, "Sub")
    if sub is not None and constant(sub.inputs[1]) is not None:
        tensor = sub.inputs[0]
    return producer(tensor, "MultiThreshold")


def largest_code(quantizer: gs.Node) -> int:
    """Of a ``MultiThreshold``: the number of its thresholds."""
    table = constant(quantizer.inputs[1])
    if table is None:
        raise refuse(quantizer.name, "its thresholds are no constant", "freeze it again")
    return int(table.shape[1])


def per_channel_shape(quantizer: gs.Node) -> tuple[int, ...]:
    """What a row of a ``MultiThreshold``'s table is reshaped to, to lie along its channels."""
    return (-1,) if quantizer.attrs.get("axis", 1) == 3 else (1, -1, 1, 1)


def ascending(table: np.ndarray) -> bool:
    """In order and without NaN; a code that all floats or none have leaves equal infinities."""
    return not np.isnan(table).any() and bool((table[:, 1:] >= table[:, :-1]).all())


def free_name(layer: str, taken: set[str]) -> str:
    """``layer``, numbered if it is taken: the tracer merges equal constants of several layers."""
    name, number = layer, 1
    while name in taken:
        number += 1
        name = f"{layer}.{number}"
    taken.add(name)
    return name


def shared_constant(graph: gs.Graph, name: str, value: np.ndarray) -> gs.Constant:
    """The graph's constant called ``name``; made on first use (names are unique in a graph)."""
    known: dict[str, gs.Constant] = graph.__dict__.setdefault("qmdd_constants", {})
    if name not in known:
        known[name] = gs.Constant(name, value)
    return known[name]


def unit_scale(graph: gs.Graph) -> gs.Constant:
    """Scale 1 of every QuantizeLinear and DequantizeLinear on codes."""
    return shared_constant(graph, "one", np.array(1.0, dtype=np.float32))


def insert(
    graph: gs.Graph, op: str, name: str, inputs: list[Any], attrs: dict[str, Any] | None = None
) -> gs.Variable:
    """Append a node with one output called ``name`` and return that output."""
    out = gs.Variable(name)
    graph.nodes.append(
        gs.Node(op=op, name=f"{name}/{op}", attrs=attrs or {}, inputs=inputs, outputs=[out])
    )
    return out


def replace_uses(graph: gs.Graph, old: gs.Tensor, new: gs.Tensor) -> None:
    """Let every consumer of ``old`` (and the graph's outputs) read ``new``."""
    for node in list(old.outputs):
        for index, tensor in enumerate(node.inputs):
            if tensor is old:
                node.inputs[index] = new
    graph.outputs = [new if tensor is old else tensor for tensor in graph.outputs]


def tidy(graph: gs.Graph) -> None:
    """Drop what nothing reads and put nodes in order."""
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


def refuse(layer: str, why: str, mend: str) -> ExportError:
    """An error that names the layer, the reason and the way out."""
    return ExportError(f"{layer}: {why}; {mend}")
