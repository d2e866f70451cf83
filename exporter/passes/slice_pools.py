"""Means of two neighbours as a Slice, a Gather and a sum; halving waits for the next product.

CQB pools rows and columns apart, ``(a + b) / 2`` each. Channels-last, the even rows (or columns)
are a Slice and the odd ones a Gather; the last of an odd side stands alone, which taking it twice
gives: ``(a + a) / 2`` is ``a``. Halving is exact, so it may follow the sums of the second pooling,
and of two constants behind each other, one a power of two, the product is exact too::

    ((a + b) / 2 + (c + d) / 2) / 2 * rest  =  ((a + b) + (c + d)) * (rest / 4)

A constant that scales a concatenation of one tensor with itself scales that tensor before it.

Assumes: a private ``AveragePool`` of two, of stride 2, that does not count its padding; no
subnormal numbers, which halving would round.
Guarantees: equal numbers. Other poolings are left.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, replace_uses, shared_constant, tidy
from .channels_last import NHWC

_END = np.iinfo(np.int64).max


def slice_pools(graph: gs.Graph) -> Outcome:
    """Write the poolings, then bring constants together; ``applied`` counts both."""
    outcome = Outcome()
    for node in [n for n in graph.nodes if n.op == "AveragePool" and n.domain == NHWC]:
        axis = _axis(node)
        if axis is not None:
            _halve(graph, node, axis)
            outcome.applied += 1
    for node in [node for node in graph.nodes if node.op == "Mul"]:
        outcome.applied += _joined(node) or _before_concat(graph, node)
    if outcome.modified:
        tidy(graph)
    return outcome


def _axis(pool: gs.Node) -> int | None:
    """The axis whose neighbours ``pool`` takes the means of, if it is such a pooling."""
    attrs, kernel = pool.attrs, list(pool.attrs["kernel_shape"])
    padded = any(attrs.get("pads", [0])) or attrs.get("count_include_pad", 0)
    plain = list(attrs.get("strides", [1, 1])) == kernel and not padded
    dilated = any(apart != 1 for apart in attrs.get("dilations", [1]))
    if not plain or dilated or not attrs.get("ceil_mode", 0) or sorted(kernel) != [1, 2]:
        return None
    return 1 + kernel.index(2)


def _halve(graph: gs.Graph, pool: gs.Node, axis: int) -> None:
    """Sums of neighbours, then one product."""
    out, x, factor = pool.outputs[0], pool.inputs[0], 0.5
    before = producer(x, "Mul")
    if before is not None and len(x.outputs) == 1 and x not in graph.outputs:
        by = _scalar(before)
        if by is not None and _power_of_two(by):  # the mean before this one
            x, factor = before.inputs[0], factor * by
    name = out.name
    every = (("start", 0), ("end", _END), (f"axis{axis}", axis), ("step", 2))
    limits = [
        shared_constant(graph, f"slice.{what}", np.array([value], dtype=np.int64))
        for what, value in every
    ]
    even = insert(graph, "Slice", f"{name}.even", [x, *limits])
    odd = insert(graph, "Gather", f"{name}.odd", [x, _odd(graph, x, name, axis)], {"axis": axis})
    total = insert(graph, "Add", f"{name}.sum", [even, odd])
    by = gs.Constant(f"{name}.factor", np.array(factor, dtype=np.float32))
    replace_uses(graph, out, insert(graph, "Mul", f"{name}.mean", [total, by]))
    pool.outputs.clear()


def _odd(graph: gs.Graph, x: gs.Tensor, name: str, axis: int) -> gs.Tensor:
    """Places ``1, 3, 5, ..`` along ``axis``, and the last one where an odd side ends on an even."""

    def number(what: str, value: int | list[int]) -> gs.Constant:
        return shared_constant(graph, f"odd.{what}", np.array(value, dtype=np.int64))

    attrs = {"start": axis, "end": axis + 1}
    side = insert(graph, "Shape", f"{name}.side", [x], attrs)
    count = insert(graph, "Squeeze", f"{name}.count", [side])
    ends = insert(graph, "Add", f"{name}.ends", [count, number("one", 1)])
    free = insert(graph, "Range", f"{name}.free", [number("one", 1), ends, number("two", 2)])
    last = insert(graph, "Sub", f"{name}.last", [count, number("one", 1)])
    return insert(graph, "Min", f"{name}.places", [free, last])


def _scalar(mul: gs.Node) -> float | None:
    """The one constant number that ``mul`` multiplies by."""
    value = constant(mul.inputs[1])
    return float(value.reshape(())) if value is not None and value.size == 1 else None


def _power_of_two(value: float) -> bool:
    return value > 0 and math.frexp(value)[0] == 0.5


def _joined(mul: gs.Node) -> bool:
    """``(x * p) * c`` as ``x * (p * c)``, ``p`` a power of two."""
    before = producer(mul.inputs[0], "Mul")
    if before is None or len(before.outputs[0].outputs) != 1:
        return False
    first, second = _scalar(before), _scalar(mul)
    if first is None or second is None or not _power_of_two(first):
        return False
    product = np.array(np.float32(second) * np.float32(first))
    mul.inputs = [before.inputs[0], gs.Constant(f"{mul.outputs[0].name}.factor", product)]
    return True


def _before_concat(graph: gs.Graph, mul: gs.Node) -> bool:
    """``Concat(x, x, ..) * c`` as ``Concat(x * c, x * c, ..)``."""
    joined = producer(mul.inputs[0], "Concat")
    if joined is None or _scalar(mul) is None or len(joined.outputs[0].outputs) != 1:
        return False
    x = joined.inputs[0]
    if any(tensor is not x for tensor in joined.inputs):
        return False
    name = mul.outputs[0].name
    scaled = insert(graph, "Mul", f"{name}.once", [x, mul.inputs[1]])
    again = insert(graph, "Concat", f"{name}.again", [scaled] * len(joined.inputs), joined.attrs)
    replace_uses(graph, mul.outputs[0], again)
    for node in (joined, mul):
        node.inputs.clear()
        node.outputs.clear()
    _joined(scaled.inputs[0])
    return True
