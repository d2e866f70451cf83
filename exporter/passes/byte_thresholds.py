"""``MultiThreshold`` as bytes: one comparison a threshold, ``sum_i Cast(x >= T_i)`` in UINT8.

Comparisons and sums of bytes are the cheapest form that was measured, at every width up to 4 bits
(docs/cpu.md): a comparison reads four bytes a number, all that follows one. Above, a binary search
in the table as :mod:`.lower_thresholds` writes it.

Assumes: ``MultiThreshold(x, T)``, ``T`` a constant ``[C or 1, n]``, ascending, ``n`` at most 255.
Guarantees: no operator outside the standard domain is left; equal codes, UINT8, called
``<layer>.codes``. What reads them as bytes reads them directly, what reads floats through a Cast.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import (
    Outcome,
    ascending,
    constant,
    insert,
    per_channel_shape,
    refuse,
    replace_uses,
    tidy,
)
from .lower_thresholds import CHAIN_LIMIT, binary_search, count_reached

_FLOAT, _UINT8 = 1, 2  # TensorProto data types


def byte_thresholds(graph: gs.Graph) -> Outcome:
    """Write every ``MultiThreshold``."""
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "MultiThreshold"]:
        layer = node.attrs.get("layer", node.name)
        table = constant(node.inputs[1])
        if table is None or not ascending(table) or not 0 < table.shape[1] <= 255:
            raise refuse(layer, "its thresholds are not an ascending constant", "freeze it again")
        old, shape = node.outputs[0], per_channel_shape(node)
        old.name = f"{layer}.count"
        if table.shape[1] <= CHAIN_LIMIT:
            codes = count_reached(graph, layer, node.inputs[0], table, shape, _UINT8)
            codes.name = f"{layer}.codes"
        else:
            found = binary_search(graph, layer, node.inputs[0], table, shape)
            codes = insert(graph, "Cast", f"{layer}.codes", [found], {"to": _UINT8})
        _hand_out(graph, layer, old, codes)
        node.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _hand_out(graph: gs.Graph, layer: str, old: gs.Tensor, codes: gs.Tensor) -> None:
    """Let every reader of ``old``, the codes as floats, read ``codes`` as it needs them."""
    for reader in list(old.outputs):
        if reader.op == "Cast" and reader.attrs["to"] == _UINT8:
            replace_uses(graph, reader.outputs[0], codes)
            reader.inputs.clear()
            reader.outputs.clear()
    if old.outputs or old in graph.outputs:
        values = insert(graph, "Cast", f"{layer}.values", [codes], {"to": _FLOAT})
        replace_uses(graph, old, values)
