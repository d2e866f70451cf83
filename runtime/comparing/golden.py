"""The codes of two bundles' sources on golden images that both hold: no torch, nothing is run."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bundle import Bundle
from ..golden import read_golden


def compare_golden(a: Bundle, b: Bundle) -> dict[str, Any] | str:
    """Logits and activation codes of both sources, or why they cannot be compared.

    Returns:
        ``images`` that both hold; ``max_abs_logit_diff``; ``layers``: of each layer that both have
        with one shape, ``codes`` and how many are ``different``; ``not_compared``: the others.

    Raises:
        BundleError: damaged golden results.
    """
    if a.golden_path is None or b.golden_path is None:
        return "not both hold golden results"
    one, other = read_golden(a.golden_path), read_golden(b.golden_path)
    keys = {(image.shape, image.tobytes()): index for index, image in enumerate(other.images)}
    pairs = [
        (index, keys[image.shape, image.tobytes()])
        for index, image in enumerate(one.images)
        if (image.shape, image.tobytes()) in keys
    ]
    if not pairs:
        return "no golden image is in both"
    logits = [abs(float(one.logits[i]) - float(other.logits[j])) for i, j in pairs]
    layers, apart = [], []
    for layer in dict.fromkeys((*one.layers, *other.layers)):
        if layer not in one.layers or layer not in other.layers:
            apart.append(layer)
            continue
        codes = [(one.codes[i][layer], other.codes[j][layer]) for i, j in pairs]
        if any(x.size != y.size for x, y in codes):
            apart.append(layer)
            continue
        different = sum(int(np.count_nonzero(x.ravel() != y.ravel())) for x, y in codes)
        count = sum(x.size for x, _ in codes)
        layers.append({"layer": layer, "codes": count, "different": different})
    return {
        "images": len(pairs),
        "max_abs_logit_diff": max(logits),
        "layers": layers,
        "not_compared": apart,
    }
