"""What networks cost as tables, with the paper's figures beside them where it has some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .efficiency import NetworkCost
from .quantizers import FULL_PRECISION
from .table4 import Published, compare, published
from .table4_report import explain_ops, explain_storage, printed
from .tables import Table, giga, mega


def width_name(bits: int) -> str:
    """How tables call a width."""
    return "fp32" if bits == FULL_PRECISION else str(bits)


def paper_of(cost: NetworkCost) -> Published | None:
    """What the paper's Table 4 has for this very network."""
    return published(cost.config, cost.side)


def summary_table(costs: Sequence[NetworkCost]) -> Table:
    """One row a network; the notes explain where it differs from the paper."""
    columns = (
        "network",
        "bits",
        "parameters",
        "multiply-adds G",
        "OPs G",
        "BOPs/64 G",
        "storage MB",
        "paper: OPs G",
        "storage MB",
    )
    rows = []
    notes: list[str] = []
    for cost in costs:
        known = paper_of(cost)
        notes += explain(known) if known else []
        rows.append(
            (
                cost.name,
                width_name(cost.bits),
                f"{cost.parameters:,}",
                giga(cost.multiply_adds),
                giga(cost.ops),
                giga(cost.bops),
                mega(cost.bytes),
                printed(known.giga, known.half) if known else "",
                printed(known.mb, known.mb_half) if known else "",
            )
        )
    return Table("Networks", columns, rows, notes)


def explain(known: Published) -> list[str]:
    """Why ours differs from the paper's row: one sentence for OPs, one for storage."""
    row = compare(known)
    return [explain_ops(row), explain_storage(row)]


def layer_table(cost: NetworkCost) -> Table:
    """One row a layer, their sum, and the paper's figures for it."""
    known = paper_of(cost)
    columns = ("layer", "kind", "w", "a", "output", "parameters", "multiply-adds", "OPs", "bytes")
    rows: list[tuple[str, ...]] = [
        (
            layer.name,
            layer.kind,
            width_name(layer.weight_bits) if layer.weight_bits else "",
            width_name(layer.code_bits) if layer.code_bits else "",
            "x".join(map(str, layer.shape)),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
            f"{layer.ops:,.0f}",
            f"{layer.bytes:,}",
        )
        for layer in cost.layers
    ]
    total = (cost.parameters, cost.multiply_adds, round(cost.ops), cost.bytes)
    rows.append(("total", "", "", "", "", *(f"{value:,}" for value in total)))
    if known is not None:
        paper = (f"{printed(known.giga, known.half)} G", f"{printed(known.mb, known.mb_half)} MB")
        rows.append((f"paper, {known.name}", "", "", "", "", "", "", *paper))
    title = f"{cost.name}, {width_name(cost.bits)} bits, image of {cost.side} pixels"
    if cost.bits == FULL_PRECISION:
        title = f"{cost.name}, full precision, image of {cost.side} pixels"
    return Table(title, columns, rows, explain(known) if known else [])


def storage_items(cost: NetworkCost, files: dict[str, int]) -> Table:
    """What is stored, by kind; ``files`` are real files beside that theory."""
    rows = [(kind, f"{count:,}") for kind, count in cost.bytes_by_kind.items()]
    rows.append(("in theory", f"{cost.bytes:,}"))
    rows += [(name, f"{count:,}") for name, count in files.items()]
    return Table("Storage", ("stored", "bytes"), rows)


def network_dict(cost: NetworkCost, files: dict[str, int], *, layers: bool) -> dict[str, Any]:
    """The same as plain data; ``paper`` is null where Table 4 has no such row."""
    known = paper_of(cost)
    data = cost.to_dict(layers=layers)
    data["files"] = files
    data["paper"] = known and {
        "row": known.name,
        "ops": known.giga * 1e9,
        "bytes": known.mb * 1e6,
        "difference": explain(known),
    }
    return data
