"""Which clipping window keeps a layer's distribution best, by relative entropy.

Migacz ("8-bit inference with TensorRT", GTC 2017): clip the histogram to a window; the reference
``P`` is what is inside, with everything outside added to the outermost bins; the candidate ``Q`` is
what is inside (the outside left out), merged into as many groups as there are codes and spread over
the occupied bins of each group again. The window with the least ``KL(P || Q)`` is taken. ``Q`` does
not hold what was clipped, so clipping much costs; it is coarser where the window is wide, so
clipping nothing costs too.

Windows are ``[-t, t]``, cut to the range of the values, as in ONNX Runtime. Where ONNX Runtime's
``EntropyCalibrater`` differs, and what follows:

* By default it has 128 bins over ``[-max|x|, max|x|]`` and 128 quantised bins, so that only one
  window exists, the whole: it then returns MinMax's range. (With several batches its bins grow in
  number, and a few windows near the whole come in.) Here 1,025 to 2,048 bins are compared.
* Its quantised bins are 128 over the whole of ``[-t, t]``, whatever the width of the codes and
  however little of the window is occupied; here they are the ``2^k`` codes over the part of the
  window that is within the range of the values, which is what the codes are spent on.
* It merges ``floor(n / 128)`` bins a group and puts the remainder, up to 127 bins, in the last
  group; here groups differ by one bin at most. It also truncates ``Q`` to whole numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..models.histogram import Bins

F64 = npt.NDArray[np.float64]

#: Probability given to an occupied bin of P where Q has none (an outermost bin that holds nothing
#: but what was clipped): KL stays finite.
_SMALLEST = 1e-9


def entropy_window(bins: Bins, levels: int) -> tuple[float, float]:
    """The window ``(low, high)``, edges of ``bins``, with the least divergence.

    Args:
        bins: the histogram; zero lies within it or at its edge.
        levels: number of codes.
    """
    counts, edges = bins
    zero = int(np.searchsorted(edges, 0.0))  # index of the edge at zero
    size = len(counts)
    best, window = np.inf, (float(edges[0]), float(edges[-1]))
    for half in range(1, max(zero, size - zero) + 1):
        start, end = max(0, zero - half), min(size, zero + half)
        if end - start < levels and half < max(zero, size - zero):
            continue
        divergence = _divergence(counts, start, end, levels)
        if divergence < best:
            best, window = divergence, (float(edges[start]), float(edges[end]))
    return window


def _divergence(counts: F64, start: int, end: int, levels: int) -> float:
    """``KL(P || Q)`` of the window of bins ``start .. end - 1``."""
    inside = counts[start:end]
    reference = inside.copy()
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    occupied = reference > 0
    groups = min(levels, len(inside))
    first = np.arange(groups) * len(inside) // groups  # groups differ by one bin at most
    mass = np.add.reduceat(inside, first)
    members = np.add.reduceat(occupied.astype(np.float64), first)
    each = np.divide(mass, members, out=np.zeros(groups), where=members > 0)
    spread = np.repeat(each, np.diff(np.append(first, len(inside))))
    total = spread[occupied].sum()
    if total == 0:
        return float("inf")
    p = reference[occupied] / reference.sum()
    q = np.maximum(spread[occupied] / total, _SMALLEST)
    return float(np.dot(p, np.log(p / q)))


__all__ = ["entropy_window"]
