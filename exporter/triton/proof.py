"""Only what was proven exact is served: what a bundle's manifest says of its parity."""

from __future__ import annotations

import math

from ...runtime.bundle import MODEL, Bundle
from ...runtime.parity import LayerResult, TierResult
from ..errors import ExportError


def proof(bundle: Bundle) -> dict[str, str]:
    """What was proven of ``bundle`` when it was exported, as plain text by name.

    Raises:
        ExportError: nothing was, or it is not exact.
    """
    tiers = _tiers(bundle)
    if not tiers:
        raise ExportError(
            f"{bundle.path}: was exported without being verified, and only what is proven exact is "
            "served; export it again without --no-verify"
        )
    missed = [tier.tier for tier in tiers if not tier.passed]
    if missed:
        raise ExportError(
            f"{bundle.path}: missed parity when it was exported ({', '.join(missed)}), and only "
            "what is proven exact is served; export it again"
        )
    source = bundle.manifest.get("source")
    compared = sum(tier.codes_compared for tier in tiers)
    return {
        "model_sha256": str(bundle.manifest["files"][MODEL]["sha256"]),
        "source_sha256": str(source.get("sha256", "")) if isinstance(source, dict) else "",
        "target": bundle.target,
        "parity": f"0 of {compared} codes wrong, {len(tiers)} tiers, {tiers[0].images} images",
    }


def _tiers(bundle: Bundle) -> list[TierResult]:
    """The tiers of the manifest; a manifest that makes no sense is one of no proof."""
    found = []
    try:
        for plain in bundle.manifest.get("parity") or ():
            difference = plain["max_abs_logit_diff"]
            tier = TierResult(
                tier=str(plain["tier"]),
                images=int(plain["images"]),
                max_abs_logit_diff=math.nan if difference is None else float(difference),
                flipped_verdicts=int(plain["flipped_verdicts"]),
                layers=[
                    LayerResult(str(layer["layer"]), int(layer["codes"]), int(layer["wrong"]))
                    for layer in plain["layers"]
                ],
                quantized=bundle.bits < 32,
                fallbacks=list(plain["fallbacks"]),
            )
            found.append(tier)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{bundle.path}: its manifest does not say how it was proven ({error}); export it again"
        ) from error
    return found
