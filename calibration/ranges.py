"""From a layer's histogram to the range that its codes cover: four methods.

* ``minmax``: the smallest and the largest value seen.
* ``percentile``: as much is cut off on both sides together as lies outside the percentile, half on
  either side; within a bin by linear interpolation.
* ``entropy``: the clipping window whose quantised histogram is closest to the true one in the
  sense of Kullback and Leibler (Migacz, "8-bit inference with TensorRT", GTC 2017), see
  :mod:`.entropy`.
* ``mse``: the grid with the least mean squared error ``E (x - value(x))^2``.

ONNX Runtime has the first three (``onnxruntime.quantization.calibrate``); on the same values:

* MinMax gives the same two numbers, to the bit.
* Percentile gives the same quantiles, but ONNX Runtime's histogram has 2,048 bins over
  ``[-max|x|, max|x|]`` and returns the *lower* edge of the bin in which a quantile falls, on both
  sides. Ours has 2,048 to 4,096 bins over the range itself and interpolates. The two differ by at
  most one bin of ONNX Runtime's and one of ours, and ours is the nearer to the exact quantile.
* Entropy is another search, see :mod:`.entropy`.
* ONNX Runtime has no calibrator by squared error.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..models.histogram import Bins, Histogram
from .entropy import entropy_window
from .errors import CalibrationError

F64 = npt.NDArray[np.float64]

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
#: Bins that the entropy method looks at, as TensorRT does.
ENTROPY_BINS = 2048
#: Ends tried on either side in a round of the squared error's search, and its rounds.
_ENDS, _ROUNDS = 20, 3
#: The smallest range tried by the squared error, relative to the largest.
_NARROWEST = 1 / 64


class Range(NamedTuple):
    """The values that the codes of a layer cover."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Method:
    """How ranges are found.

    Attributes:
        name: one of :data:`METHODS`.
        percentile: share in percent that ``percentile`` keeps, 50 to 100.
    """

    name: str = "mse"
    percentile: float = PERCENTILE

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise CalibrationError(
                f"no calibration method {self.name!r}; there are {', '.join(METHODS)}"
            )
        if not 50 <= self.percentile < 100:
            raise CalibrationError(
                f"percentile {self.percentile} must lie between 50 and 100 (100 is minmax)"
            )

    def needs(self, bits: int) -> int:
        """How many values a layer must have been given for the method to mean anything."""
        if self.name == "percentile":  # one value beyond either end
            return math.ceil(2 / (1 - self.percentile / 100) - 1e-6)
        if self.name == "entropy":  # as many as the bins that are compared
            return ENTROPY_BINS
        return 1 if self.name == "minmax" else int(2**bits)

    def find(self, histogram: Histogram, bits: int) -> Range:
        """The range for codes of ``bits`` bits."""
        if self.name == "percentile":
            return percentile_range(histogram, self.percentile)
        if self.name == "entropy":
            return entropy_range(histogram, bits)
        if self.name == "mse":
            return mse_range(histogram, bits)
        return Range(histogram.low, histogram.high)


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """``percentile`` percent of the values, as many left out below as above."""
    bins = histogram.bins()
    cut = (1 - percentile / 100) / 2 * histogram.total
    until = np.cumsum(bins.counts)

    def value(index: int, rank: float) -> float:
        before = until[index] - bins.counts[index]
        part = (rank - before) / bins.counts[index]
        return float(bins.edges[index] + part * (bins.edges[index + 1] - bins.edges[index]))

    low = value(int(np.searchsorted(until, cut, side="right")), cut)
    high = value(int(np.searchsorted(until, histogram.total - cut)), histogram.total - cut)
    return _within(histogram, low, high)


def entropy_range(histogram: Histogram, bits: int) -> Range:
    """The window of :func:`.entropy.entropy_window`, no wider than the values."""
    low, high = entropy_window(histogram.bins(ENTROPY_BINS), 2**bits)
    return _within(histogram, low, high)


def _within(histogram: Histogram, low: float, high: float) -> Range:
    """Edges of bins cut to the values; a bin may begin beyond the last of them."""
    found = histogram.low, histogram.high
    return Range(float(np.clip(low, *found)), float(np.clip(high, *found)))


def grid(low: F64, high: F64, top: int) -> tuple[F64, F64]:
    """Step and code of zero of the uniform quantizer over ranges ``[low, high]``, zero in them.

    As :class:`qmdd.models.quantizers.MinMaxActivation` lays it.
    """
    below, above = np.minimum(low, 0.0), np.maximum(high, 0.0)
    step = np.maximum((above - below) / top, 1e-8)
    return step, np.clip(np.rint(-below / step), 0, top)


def squared_error(bins: Bins, low: F64, high: F64, top: int) -> F64:
    """Mean of ``(x - value(x))^2`` for each range: ``[m]`` for ``low`` and ``high`` ``[m]``."""
    used = bins.counts > 0
    x, share = bins.centres[used], bins.counts[used] / bins.counts.sum()
    step, zero = grid(low, high, top)
    error = np.empty(len(step))
    for i, (s, z) in enumerate(zip(step, zero, strict=True)):
        value = np.clip(np.rint(x / s), -z, top - z) * s
        error[i] = np.dot(np.square(x - value), share)
    return error


def mse_range(histogram: Histogram, bits: int) -> Range:
    """The range with the least squared error, searched on a grid of both ends, ever finer."""
    bins, top = histogram.bins(), 2**bits - 1
    ends = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if ends[0] == ends[1]:
        return Range(*ends)
    spans = [(_NARROWEST, 1.0), (_NARROWEST, 1.0)]  # shares of either end, still to be searched
    best = Range(*ends)
    least = float(squared_error(bins, np.array([ends[0]]), np.array([ends[1]]), top)[0])
    for _ in range(_ROUNDS):
        tried = [np.geomspace(*span, _ENDS) for span in spans]
        low, high = (axis.ravel() for axis in np.meshgrid(*tried, indexing="ij"))
        error = squared_error(bins, low * ends[0], high * ends[1], top)
        index = int(error.argmin())
        if error[index] < least:
            least = float(error[index])
            best = Range(float(low[index] * ends[0]), float(high[index] * ends[1]))
        chosen = low[index], high[index]
        widths = [(span[1] / span[0]) ** (1.5 / _ENDS) for span in spans]
        spans = [
            (float(c / w), float(min(1.0, c * w))) for c, w in zip(chosen, widths, strict=True)
        ]
    return best


def clipped_share(histogram: Histogram, low: float, high: float) -> float:
    """Share of the values outside ``[low, high]``, each bin as if it lay at its middle."""
    bins = histogram.bins()
    outside = (bins.centres < low) | (bins.centres > high)
    return float(bins.counts[outside].sum() / bins.counts.sum())


__all__ = ["METHODS", "PERCENTILE", "Method", "Range", "clipped_share", "grid", "squared_error"]
