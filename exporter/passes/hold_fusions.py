"""Keep apart what OpenVINO would merge, and round or compute otherwise by it.

It rewrites neighbours that are linear in one tensor: ``(x * a) * b`` becomes ``x * (a * b)``,
``(x + a) + b`` becomes ``x + (a + b)``, ``x * a + b`` one fused operation that rounds once (FMA),
and the ``* a`` behind a convolution of floats goes into its weights. Each is a rounding less than
the source has, and some codes flip. A PReLU that it merges into a convolution whose output has one
pixel gives wrong numbers (all of this measured with 2026.4: docs/openvino.md). Between two of them

    Max(x, lowest finite float32)

is put: it changes no number, no rewrite sees through it, and no convolution takes it in.

One pair is left alone, scale and bias directly behind a convolution of codes: that is the epilogue
of the INT8 kernel, which multiplies and then adds, two roundings on each generation of kernels
(AVX2, AVX2-VNNI, AVX512, AVX512-VNNI, AMX: measured; ``qmdd verify`` measures it where it is run).

Assumes: no infinities and no NaN, which no bounded pixel gives.
Guarantees: the same values; between two linear operations on one tensor, and before every PReLU,
stands a ``Max``.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, shared_constant, tidy

_LINEAR = ("Add", "Div", "Mul", "Sub")


def hold_fusions(graph: gs.Graph) -> Outcome:
    """Put a ``Max`` wherever two operations could be merged."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op in (*_LINEAR, "PRelu")]:
        index = 0 if node.op == "PRelu" else _varying(node)
        before = producer(node.inputs[index]) if index is not None else None
        if index is None or before is None or not _merges(before, node):
            continue
        node.inputs[index] = _held(graph, node.inputs[index])
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _held(graph: gs.Graph, tensor: gs.Tensor) -> gs.Tensor:
    """``tensor`` behind a ``Max``, the same one for all its readers."""
    lowest = shared_constant(graph, "lowest", np.array(np.finfo(np.float32).min))
    for node in tensor.outputs:
        if node.op == "Max" and node.inputs[1] is lowest:
            return node.outputs[0]
    return insert(graph, "Max", f"{tensor.name}.held", [tensor, lowest])


def _varying(node: gs.Node) -> int | None:
    """Index of the operand that is no constant of floats, if the other one is."""
    values = [constant(tensor) for tensor in node.inputs]
    known = [value is not None for value in values]
    floats = any(value is not None and value.dtype.kind == "f" for value in values)
    return known.index(False) if floats and sorted(known) == [False, True] else None


def _merges(before: gs.Node, node: gs.Node) -> bool:
    if node.op == "PRelu":
        return bool(before.op != "Max")
    if before.op == "Conv":
        return not _on_codes(before) and node.op in ("Mul", "Div")
    if before.op not in _LINEAR or _varying(before) is None:
        return False
    epilogue = before.op == "Mul" and node.op == "Add"
    conv = producer(before.inputs[0], "Conv") if epilogue else None
    return conv is None or not _on_codes(conv)


def _on_codes(conv: gs.Node) -> bool:
    return producer(conv.inputs[0], "DequantizeLinear") is not None
