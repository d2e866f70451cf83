"""Whether a bundle is exact: what its manifest says of the export, and what it does here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...runtime.bundle import Bundle
from ...runtime.device.facts import Facts
from ...runtime.errors import RuntimeFailure
from ...runtime.golden_check import check_golden
from .read import whole

Report = Callable[[str, int, int], None]

#: So many tiers and layers are read; no bundle of ours has as many.
_TIERS, _LAYERS = 8, 1000


def recorded(bundle: Bundle) -> list[dict[str, Any]]:
    """The tiers that were compared with the source when the bundle was exported."""
    tiers = Facts(bundle.manifest).objects("parity")[:_TIERS]
    return [read_tier(tier, quantized=bundle.bits != 32) for tier in tiers]


def read_tier(facts: Facts, *, quantized: bool) -> dict[str, Any]:
    """One tier, its verdict worked out again: what a file claims of itself is not believed."""
    layers: list[dict[str, Any]] = [
        {
            "layer": layer.text("layer"),
            "codes": whole(layer, "codes") or 0,
            "wrong": whole(layer, "wrong") or 0,
        }
        for layer in facts.objects("layers")[:_LAYERS]
    ]
    wrong = whole(facts, "wrong_codes")
    tier: dict[str, Any] = {
        "tier": facts.text("tier"),
        "runtime": facts.text("runtime") or "onnxruntime",
        "images": whole(facts, "images") or 0,
        "codes_compared": whole(facts, "codes_compared") or 0,
        "wrong_codes": max(sum(layer["wrong"] for layer in layers), wrong or 0),
        "max_abs_logit_diff": facts.number("max_abs_logit_diff"),
        "logit_bar": facts.number("logit_bar"),
        "flipped_verdicts": whole(facts, "flipped_verdicts"),
        "fallbacks": list(facts.texts("fallbacks")),
        "layers": layers,
    }
    difference, bar = tier["max_abs_logit_diff"], tier["logit_bar"]
    tier["passed"] = (
        tier["images"] > 0
        and wrong is not None
        and tier["wrong_codes"] == 0
        and (tier["codes_compared"] > 0 or not quantized)
        and difference is not None
        and bar is not None
        and difference <= bar
        and tier["flipped_verdicts"] == 0
        and not tier["fallbacks"]
    )
    return tier


def here(
    bundle: Bundle, threads: int | None = None, report: Report | None = None
) -> tuple[dict[str, Any] | None, str]:
    """Run the bundle on its golden images; what came of it, or why it did not run here."""
    try:
        found = check_golden(bundle.path, threads=threads, report=report)
    except RuntimeFailure as error:
        return None, str(error)
    tiers = [{**tier.to_dict(), "passed": tier.passed} for tier in found.parity]
    return {"parity": tiers, "notes": found.notes, "passed": found.passed}, ""


def by_layer(tiers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Codes compared in each layer and the wrong ones by tier, over ``tiers``, in their order."""
    rows: dict[str, dict[str, Any]] = {}
    for tier in tiers:
        for layer in tier["layers"]:
            new = {"layer": layer["layer"], "codes": 0, "wrong": {}}
            row = rows.setdefault(layer["layer"], new)
            row["codes"] = max(row["codes"], layer["codes"])
            row["wrong"][tier["tier"]] = layer["wrong"]
    return list(rows.values())
