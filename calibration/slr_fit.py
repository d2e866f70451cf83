"""SLR's offset fitted to an observed distribution (paper Eq. 10-11), without training.

Over a range ``[l, h]`` and for an offset ``off > -l`` MinMax under SLR has the codes::

    u(x) = ln(x + off)      step = (u(h) - u(l)) / (2^k - 1)
    c(x) = clamp(round((u(x) - u(l)) / step), 0, 2^k - 1)

What reads them is a convolution whose batch-norm is estimated anew, so any scale and shift of the
codes is made good behind it. What counts is therefore how well an affine function of the code can
still tell ``x``::

    min over a, b of E (x - a c(x) - b)^2 = Var(x) - Cov(x, c)^2 / Var(c)

which needs nothing but the histogram of ``x``. ``off = r (h - l) - l`` is searched over a geometric
grid of ``r``: at ``r`` near 0 the logarithm spends its codes on the smallest values; at large
``r`` it is straight over the range but for ``1/(8r)`` of it, and the codes are nearly the uniform
ones. The largest ``r`` tried is 16, at 8 bits 128: a quarter of a code from straight at most, and a
step is still 60 units in the last place of a float32 logarithm. Where the method is
``mse``, the ends ``l`` and ``h`` are searched too; otherwise they are the method's own.

Then ``off = min(max|X|, eps) + tau`` (Eq. 10, eps = 1) gives ``tau = off - min(max|X|, 1)``, with
``max|X|`` the largest magnitude seen, frozen.

*What to expect.* The levels ``a c + b`` lie evenly, and for levels that lie evenly the encoder
with the least squared error is the nearest one: uniform thresholds. So no logarithm lowers the
squared error below that of the best *uniform* grid that is free to lie anywhere; SLR pays in
training, where the weights behind it learn to read its codes (paper, Fig. 5-6), and there is no
training here. What the fit can gain over the plain MinMax quantizer is only that its grid need not
have a level at zero, which is felt at 2 bits. ``docs/calibration.md`` has the measurements.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..models.histogram import Bins, Histogram
from ..models.quantizers.slr import SMALLEST_ARGUMENT
from .ranges import Range

F64 = npt.NDArray[np.float64]

#: Smallest ``r``: how far the range lies from the logarithm's pole, in ranges.
NEAREST = 1 / 64
#: The smallest share of an end tried where the ends are searched.
_SMALLEST_SHARE = 1 / 64
#: Values tried for ``r`` and for each end in a round, and rounds; each is 4 times as fine.
_OFFSETS, _ENDS, _ROUNDS = 13, 9, 3
#: A range narrower than this share of its ends is widened: a logarithm needs some range.
_NARROWEST = 1e-3
#: The range stays this far above where SLR holds the argument of its logarithm.
_ARGUMENT = 2 * SMALLEST_ARGUMENT


class SlrFit(NamedTuple):
    """What SLR over MinMax is set to.

    Attributes:
        low: start of the range in ``x``.
        high: its end.
        offset: ``off``.
        error: mean squared error of the best affine function of the code.
    """

    low: float
    high: float
    offset: float
    error: float


def farthest(bits: int) -> float:
    """Largest ``r`` for codes of ``bits`` bits; see the module's text."""
    return max(16.0, 2.0 ** (bits - 1))


def affine_error(bins: Bins, low: float, high: float, offset: float, top: int) -> float:
    """Mean squared error of the best affine function of the code, for codes ``0 .. top``."""
    used = bins.counts > 0
    x, share = bins.centres[used], bins.counts[used] / bins.counts.sum()
    return _affine_error(x, share, low, high, offset, top)


def _affine_error(x: F64, share: F64, low: float, high: float, offset: float, top: int) -> float:
    start, end = np.log(low + offset), np.log(high + offset)
    u = np.log(np.clip(x, low, high) + offset)
    code = np.rint((u - start) * (top / (end - start)))
    mean_x, mean_code = np.dot(x, share), np.dot(code, share)
    spread_x = np.dot(np.square(x - mean_x), share)
    spread_code = np.dot(np.square(code - mean_code), share)
    if spread_code == 0:
        return float(spread_x)
    both = np.dot((x - mean_x) * (code - mean_code), share)
    return float(spread_x - both * both / spread_code)


def fit_slr(histogram: Histogram, given: Range, bits: int, *, search_ends: bool) -> SlrFit:
    """The offset, and with ``search_ends`` the ends within ``given``, with the least error."""
    binned, top = histogram.bins(), 2**bits - 1
    used = binned.counts > 0
    x, share = binned.centres[used], binned.counts[used] / binned.counts.sum()
    given = _widened(given)
    spans = [(NEAREST, farthest(bits))] + [(_SMALLEST_SHARE if search_ends else 1.0, 1.0)] * 2
    best, at = SlrFit(given.low, given.high, 0.0, np.inf), [1.0, 1.0, 1.0]
    for _ in range(_ROUNDS):
        numbers = (_OFFSETS, *((_ENDS if search_ends else 1,) * 2))
        axes = [np.geomspace(*span, n) for span, n in zip(spans, numbers, strict=True)]
        for low_share, high_share, ratio in itertools.product(axes[1], axes[2], axes[0]):
            low, high = _shrunk(given, float(low_share), float(high_share))
            if high <= low:
                continue
            offset = max(float(ratio) * (high - low), _ARGUMENT) - low
            error = _affine_error(x, share, low, high, offset, top)
            if error < best.error:
                best = SlrFit(low, high, offset, error)
                at = [float(ratio), float(low_share), float(high_share)]
        spans = [_closer(span, value) for span, value in zip(spans, at, strict=True)]
    return best


def _closer(span: tuple[float, float], value: float) -> tuple[float, float]:
    """A quarter of ``span`` (of its logarithm) around ``value``, cut to ``span``."""
    reach = (span[1] / span[0]) ** (1 / 8)
    return max(span[0], value / reach), min(span[1], value * reach)


def _shrunk(given: Range, low_share: float, high_share: float) -> Range:
    """Each end moved towards zero, or towards the other end where zero is not between them."""
    inner_low = min(max(0.0, given.low), given.high)
    inner_high = max(min(0.0, given.high), given.low)
    return Range(
        inner_low + low_share * (given.low - inner_low),
        inner_high + high_share * (given.high - inner_high),
    )


def _widened(given: Range) -> Range:
    """A range with some width: constant activations have none."""
    slack = max(_NARROWEST * max(abs(given.low), abs(given.high)), 1e-6)
    if given.high - given.low >= slack:
        return given
    return Range(given.low - slack / 2, given.high + slack / 2)


__all__ = ["NEAREST", "SlrFit", "affine_error", "farthest", "fit_slr"]
