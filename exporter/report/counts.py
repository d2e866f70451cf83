"""Histograms cut to what a plot can show, and the steps of quantizers over them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...models.histogram import Histogram

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

#: Bars of a plot.
BARS = 64
#: This share of the values may lie outside a plot, at either end.
_TAIL = 0.001
#: Thresholds farther than so many widths of the bulk are not shown.
_FAR = 1.5


def bars(seen: Histogram, thresholds: F32) -> dict[str, Any]:
    """Bars of what was seen, as plain data.

    Args:
        seen: at least one value.
        thresholds: any shape; the plot reaches to the finite ones that are not too far away.

    Returns:
        ``first`` (the left edge), ``width`` of a bar, ``counts``; ``outside``, the share of values
        beyond the plot's ends; ``low``, ``high`` and ``total`` of all values.
    """
    fine = seen.bins()
    low, high = _window(fine.counts, fine.edges, thresholds)
    start = max(int(np.searchsorted(fine.edges, low, side="right")) - 1, 0)
    stop = min(int(np.searchsorted(fine.edges, high, side="left")), len(fine.counts))
    group = max(1, math.ceil((stop - start) / BARS))
    number = math.ceil((stop - start) / group)
    held = np.zeros(number * group)
    held[: stop - start] = fine.counts[start:stop]
    counts = held.reshape(number, group).sum(axis=1)
    return {
        "first": float(fine.edges[start]),
        "width": float(fine.edges[1] - fine.edges[0]) * group,
        "counts": [int(count) for count in counts],
        "outside": 1 - float(counts.sum()) / seen.total,
        "low": seen.low,
        "high": seen.high,
        "total": seen.total,
    }


def _window(counts: F64, edges: F64, thresholds: F32) -> tuple[float, float]:
    """The bulk of the values and the thresholds near it."""
    share = np.cumsum(counts) / counts.sum()
    low = float(edges[int(np.searchsorted(share, _TAIL))])
    high = float(edges[int(np.searchsorted(share, 1 - _TAIL)) + 1])
    reach = _FAR * (high - low)
    finite = thresholds[np.isfinite(thresholds)].astype(np.float64)
    near = finite[(finite > low - reach) & (finite < high + reach)]
    if near.size:
        edge = 0.03 * (high - low)
        low, high = min(low, float(near.min()) - edge), max(high, float(near.max()) + edge)
    return low, high


def shares(counts: npt.NDArray[np.int64]) -> list[float]:
    """How often each code came, of all."""
    return [float(share) for share in counts / max(int(counts.sum()), 1)]


def within_floats(values: F32) -> list[float]:
    """``values`` as plain data; infinities, which JSON has not, as the outermost floats."""
    most = float(np.finfo(np.float32).max)
    return [float(value) for value in np.clip(values.reshape(-1).astype(np.float64), -most, most)]


def tables_of_channels(table: F32) -> dict[str, list[float]]:
    """Where the channels step: thresholds ``[n]`` of the middle one, and of the outer ones.

    Args:
        table: thresholds ``[C, n]``, each row ascending.

    Returns:
        ``median``; ``early`` and ``late``, between which the middle 80 % of the channels step.
    """
    found = np.percentile(table, (10, 50, 90), axis=0, method="nearest")
    names = ("early", "median", "late")
    return {name: within_floats(row) for name, row in zip(names, found, strict=True)}
