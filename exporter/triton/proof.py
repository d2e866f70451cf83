"""Only what was proven exact is served: what a bundle's manifest says of its parity."""

from __future__ import annotations

from typing import Any

from ...runtime.bundle import MODEL, Bundle
from ..errors import ExportError


def proof(bundle: Bundle) -> dict[str, str]:
    """What was proven of ``bundle`` when it was exported, as plain text by name.

    Raises:
        ExportError: nothing was, or it is not exact.
    """
    tiers = bundle.manifest.get("parity")
    if not isinstance(tiers, list) or not tiers or not all(isinstance(t, dict) for t in tiers):
        raise ExportError(
            f"{bundle.path}: was exported without being verified, and only what is proven exact is "
            "served; export it again without --no-verify"
        )
    for tier in tiers:
        if not _passed(tier, quantized=bundle.bits < 32):
            raise ExportError(
                f"{bundle.path}: missed parity when it was exported ({tier.get('tier')}), and only "
                "what is proven exact is served; export it again"
            )
    source = bundle.manifest.get("source")
    compared = sum(int(tier["codes_compared"]) for tier in tiers)
    return {
        "model_sha256": str(bundle.manifest["files"][MODEL]["sha256"]),
        "source_sha256": str(source.get("sha256", "")) if isinstance(source, dict) else "",
        "target": bundle.target,
        "parity": f"0 of {compared} codes wrong, {len(tiers)} tiers, {tiers[0]['images']} images",
    }


def _passed(tier: dict[str, Any], *, quantized: bool) -> bool:
    """As :attr:`qmdd.exporter.parity.TierResult.passed`, of what a manifest holds."""
    counts = [
        tier.get(key) for key in ("images", "codes_compared", "wrong_codes", "flipped_verdicts")
    ]
    difference, bar = tier.get("max_abs_logit_diff"), tier.get("logit_bar")
    if any(type(count) is not int for count in counts):
        return False
    if not all(isinstance(number, (int, float)) for number in (difference, bar)):
        return False
    images, compared, wrong, flipped = counts
    close = difference is not None and bar is not None and difference <= bar
    seen = bool(images) and (bool(compared) or not quantized)
    return seen and close and not wrong and not flipped and not tier.get("fallbacks")
