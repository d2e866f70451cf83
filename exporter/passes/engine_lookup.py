"""A quantizer whose input lives on an 8-bit grid, as a table of 256 codes.

Pixels and the codes of another quantizer take at most 256 values. Whatever stands between them and
a quantizer, channel by channel, is then evaluated once for each value, here, in the float32
operations of the chain itself; on the device one ``Gather`` is left. On that grid this is exact,
for chains that are not monotone (:mod:`.fold_chain` leaves those) as for others. It would not be
for floats that are first rounded to the grid: those keep their comparisons.

Assumes: ``MultiThreshold(f(...g(x)), T)`` with ``f .. g`` among Add, Mul of a per-channel constant,
PRelu, Relu, and ``x`` UINT8 pixels as floats or another quantizer's codes.
Guarantees: equal codes for every value of the grid, called ``<layer>.codes``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from ...models.float_order import F32
from .base import Outcome, constant, insert, largest_code, producer, tidy
from .engine_thresholds import hand_out
from .fold_chain import Link, chain_behind

_INT32 = 6  # TensorProto data type
_PIXELS = 256


class _Grid(NamedTuple):
    """A tensor of whole numbers ``0 .. values - 1`` as floats."""

    tensor: gs.Tensor
    values: int


def engine_lookup(graph: gs.Graph) -> Outcome:
    """Look up every quantizer that reads a grid."""
    outcome = Outcome()
    # The last one first: its grid may be the codes of another that is looked up too.
    for node in [node for node in reversed(graph.nodes) if node.op == "MultiThreshold"]:
        table = constant(node.inputs[1])
        links, end = _to_grid(graph, node.inputs[0])
        if table is None or end is None:
            continue
        layer = node.attrs.get("layer", node.name)
        codes = grid_codes(table, [link.apply for link in reversed(links)], end.values)
        count = _look_up(graph, layer, end.tensor, codes)
        hand_out(graph, layer, node, count, table.shape[1])
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def grid_codes(table: np.ndarray, steps: list[Callable[[F32], F32]], values: int) -> np.ndarray:
    """Codes float32 ``[C, values]`` of ``0 .. values - 1`` behind ``steps``, in order.

    Args:
        table: ascending thresholds float32 ``[C or 1, n]``.
    """
    x = np.arange(values, dtype=np.float32)[None, :]
    with np.errstate(over="ignore", invalid="ignore"):
        for step in steps:
            x = step(x)
    channels = max(table.shape[0], x.shape[0])
    reached = x[:, :, None] >= table[:, None, :]
    return np.broadcast_to(reached.sum(axis=2), (channels, values)).astype(np.float32)


def _to_grid(graph: gs.Graph, tensor: gs.Tensor) -> tuple[list[Link], _Grid | None]:
    """The operations between ``tensor`` and a grid, last first."""
    links: list[Link] = []
    while True:
        found = _grid(graph, tensor)
        if found is not None:
            return links, found
        more = chain_behind(tensor)
        if not more or not more[0].exact:
            return links, None
        links.append(more[0])
        tensor = more[0].source


def _grid(graph: gs.Graph, tensor: gs.Tensor) -> _Grid | None:
    quantizer = producer(tensor, "MultiThreshold")
    if quantizer is not None and largest_code(quantizer) < _PIXELS:
        return _Grid(tensor, largest_code(quantizer) + 1)
    cast = producer(tensor, "Cast")
    if cast is not None and cast.inputs[0] in graph.inputs:
        return _Grid(tensor, _PIXELS) if cast.inputs[0].dtype == np.uint8 else None
    return None


def _look_up(graph: gs.Graph, layer: str, grid: gs.Tensor, codes: np.ndarray) -> gs.Tensor:
    channels, values = codes.shape
    index = insert(graph, "Cast", f"{layer}.index", [grid], {"to": _INT32})
    if channels > 1:
        first = (np.arange(channels, dtype=np.int32) * values).reshape(1, -1, 1, 1)
        rows = gs.Constant(f"{layer}.rows", first)
        index = insert(graph, "Add", f"{layer}.place", [index, rows])
    held = gs.Constant(f"{layer}.lookup", codes.reshape(-1))
    return insert(graph, "Gather", f"{layer}.count", [held, index], {"axis": 0})
