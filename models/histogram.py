"""A histogram of a stream of floats whose range nobody knows beforehand.

Bins have width ``2^e`` and are counted from zero: bin ``i`` holds ``i * 2^e <= x < (i+1) * 2^e``.
When a value does not fit into :data:`BINS` of them, neighbours are merged, ``e`` grows by one and
bin ``i`` becomes ``floor(i/2)``, which is exact: scaling by a power of two rounds nothing. So one
pass over the data is enough, and the result depends on the values alone, neither on their order
nor on how they were cut into batches: ``e`` is the smallest that all of them fit into. At least
half of the bins then lie within the range of the values and zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: Bins of a histogram (32 KiB of counts).
BINS = 4096
#: No finer bins than 2^-100; float32 reaches down to 2^-149, no activation does.
_FINEST = -100
#: Values counted at once, which bounds the memory that counting takes.
_CHUNK = 1 << 20


class Bins(NamedTuple):
    """Counts float64 ``[n]`` of ``n`` neighbouring bins, and their ``n + 1`` edges, ascending."""

    counts: F64
    edges: F64

    @property
    def centres(self) -> F64:
        """Middle of each bin."""
        middles: F64 = (self.edges[1:] + self.edges[:-1]) / 2
        return middles


class Histogram:
    """Counts of a stream of float32 values, with its smallest and largest.

    Attributes:
        low: smallest value added, ``inf`` before the first.
        high: largest value added, ``-inf`` before the first.
        total: how many values were added.
    """

    def __init__(self) -> None:
        self.low, self.high, self.total = math.inf, -math.inf, 0
        self._exponent = _FINEST
        self._first = 0  # index of the bin that _counts begins with
        self._counts: I64 = np.zeros(BINS, dtype=np.int64)

    def add(self, values: F32) -> None:
        """Count ``values`` (float32, any shape).

        Raises:
            ValueError: NaN or infinity among them.
        """
        flat = values.reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinity among the values")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.total += flat.size
        self._make_room()
        for start in range(0, flat.size, _CHUNK):
            index = self._index(flat[start : start + _CHUNK]).astype(np.int64) - self._first
            self._counts += np.bincount(index, minlength=BINS)

    def _index(self, values: F32) -> F64:
        """Bin numbers, exact: in float64 a product with a power of two rounds nothing here."""
        index: F64 = np.floor(values.astype(np.float64) * 2.0**-self._exponent)
        return index

    def _make_room(self) -> None:
        """Merge bins until the range, zero in it, fits; move the counts to where it begins."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        exponent = self._exponent
        while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= (
            BINS
        ):
            exponent += 1
        first = math.floor(math.ldexp(low, -exponent))
        if (exponent, first) == (self._exponent, self._first):
            return
        held = np.flatnonzero(self._counts)
        moved = ((held + self._first) >> (exponent - self._exponent)) - first
        counts = np.zeros(BINS, dtype=np.int64)
        np.add.at(counts, moved, self._counts[held])
        self._exponent, self._first, self._counts = exponent, first, counts

    def bins(self, most: int = BINS) -> Bins:
        """The bins from the lowest value's to the highest's, merged to at most ``most``.

        Zero's bin is always among them.

        Raises:
            ValueError: nothing was added.
        """
        if self.total == 0:
            raise ValueError("a histogram of no values")
        index = np.flatnonzero(self._counts) + self._first
        counts = self._counts[index - self._first]
        exponent = self._exponent
        first, last = min(int(index[0]), 0), max(int(index[-1]), 0)
        while last - first >= most:
            first, last, index, exponent = first >> 1, last >> 1, index >> 1, exponent + 1
        merged = np.zeros(last - first + 1)
        np.add.at(merged, index - first, counts)
        edges = np.ldexp(np.arange(first, last + 2, dtype=np.float64), exponent)
        return Bins(merged, edges)


__all__ = ["BINS", "Bins", "Histogram"]
