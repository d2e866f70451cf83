"""Whether a bundle is exact: what its manifest says of the export, and what it does here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...runtime.bundle import Bundle
from ...runtime.device.facts import Facts
from ...runtime.errors import RuntimeFailure
from ...runtime.golden_check import check_golden
from ...runtime.parity import LayerResult, TierResult
from ...runtime.sessions import TENSORRT
from .read import whole

Report = Callable[[str, int, int], None]

#: So many tiers and layers are read; no bundle of ours has as many.
_TIERS, _LAYERS = 8, 1000


def recorded(bundle: Bundle) -> list[dict[str, Any]]:
    """The tiers that were compared with the source when the bundle was exported."""
    tiers = Facts(bundle.manifest).objects("parity")[:_TIERS]
    return [tier_data(read_tier(tier, quantized=bundle.bits != 32)) for tier in tiers]


def read_tier(facts: Facts, *, quantized: bool) -> TierResult:
    """One tier that a file tells of, to be judged anew: what it claims of itself is not believed.

    What is missing counts against it.
    """
    difference, flipped = facts.number("max_abs_logit_diff"), whole(facts, "flipped_verdicts")
    return TierResult(
        tier=facts.text("tier"),
        images=whole(facts, "images") or 0,
        max_abs_logit_diff=math.nan if difference is None else difference,
        flipped_verdicts=-1 if flipped is None else flipped,
        layers=[
            LayerResult(
                layer.text("layer"),
                whole(layer, "codes") or 0,
                1 if (wrong := whole(layer, "wrong")) is None else abs(wrong),
            )
            for layer in facts.objects("layers")[:_LAYERS]
        ],
        quantized=quantized,
        runtime=facts.text("runtime") or "onnxruntime",
        fallbacks=list(facts.texts("fallbacks")),
    )


def on_device(facts: Facts, *, quantized: bool) -> TierResult:
    """The same of a device's report: an engine's tiers bring their own budget and bar."""
    tier = read_tier(facts, quantized=quantized)
    tier.codes_seen = bool(tier.layers)
    if tier.runtime == TENSORRT:
        tier.code_budget = facts.number("code_budget") or 0.0
        tier.bar = facts.number("logit_bar")
    return tier


def tier_data(tier: TierResult) -> dict[str, Any]:
    """Plain data with the verdict; what is no number, or not known, as ``None``."""
    difference, flipped = tier.max_abs_logit_diff, tier.flipped_verdicts
    return {
        **tier.to_dict(),
        "max_abs_logit_diff": difference if math.isfinite(difference) else None,
        "flipped_verdicts": flipped if flipped >= 0 else None,
        "passed": tier.passed,
    }


def here(
    bundle: Bundle, threads: int | None = None, report: Report | None = None
) -> tuple[dict[str, Any] | None, str]:
    """Run the bundle on its golden images; what came of it, or why it did not run here."""
    try:
        found = check_golden(bundle.path, threads=threads, report=report)
    except RuntimeFailure as error:
        return None, str(error)
    tiers = [tier_data(tier) for tier in found.parity]
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
