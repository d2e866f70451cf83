"""What a comparison must not exceed, for programs that decide by its exit code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def missed(
    found: Mapping[str, Any],
    *,
    size_ratio: float | None = None,
    latency_ratio: float | None = None,
    acc_drop: float | None = None,
    ap_drop: float | None = None,
) -> list[str]:
    """A line for each bar that b misses; ``None`` sets none.

    Args:
        found: of the comparison; ``bench`` and ``paired`` are there if their bars are set.
        size_ratio, latency_ratio: the most that b may take, as a factor of a's.
        acc_drop, ap_drop: the most that the mean may fall from a to b, in points of 1.
    """
    lines = []
    for what, value, most in (
        ("size", found["size_ratio"], size_ratio),
        ("latency", (found.get("bench") or {}).get("ratio", {}).get("median"), latency_ratio),
    ):
        if most is not None and not value <= most:
            lines.append(f"{what}: {value:.3f} times that of A, at most {most:g} allowed")
    rows = (found.get("paired") or {}).get("rows") or [{"difference": {}}]
    for what, drop in (("acc", acc_drop), ("ap", ap_drop)):
        fall = -rows[-1]["difference"].get(what, math.nan)
        # Where nothing could be measured, nothing is proven.
        if drop is not None and not fall <= drop:
            lines.append(f"mean {what.upper()}: lower by {fall:.4f}, at most {drop:g} allowed")
    return lines
