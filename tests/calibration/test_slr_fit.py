"""SLR's fit: its error against the definition, and why it ends where it does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.calibration.ranges import Range
from qmdd.calibration.slr_fit import affine_error, farthest, fit_slr
from qmdd.models.histogram import Histogram

F32 = npt.NDArray[np.float32]


def _layer(seed: int = 0, size: int = 20_000) -> F32:
    rng = np.random.default_rng(seed)
    x = rng.gamma(1.5, 1, size) * np.where(rng.random(size) < 0.4, -0.2, 1.0)
    return x.astype(np.float32)


def _of(x: F32) -> Histogram:
    found = Histogram()
    found.add(x)
    return found


@given(
    bits=st.sampled_from([1, 2, 4, 8]),
    low=st.floats(-1, 0),
    high=st.floats(1, 8),
    ratio=st.floats(0.02, 16),
)
def test_the_error_is_that_of_a_regression_on_the_code(
    bits: int, low: float, high: float, ratio: float
) -> None:
    """``np.polyfit`` of x, each value at its bin's middle, on the codes of Eq. 11."""
    x = _layer(size=500)
    bins = _of(x).bins()
    middles = bins.centres[np.searchsorted(bins.edges, x.astype(np.float64), side="right") - 1]
    off, top = ratio * (high - low) - low, 2**bits - 1
    u = np.log(np.maximum(middles + off, 1e-4))
    ends = np.log(low + off), np.log(high + off)
    code = np.clip(np.rint((u - ends[0]) / (ends[1] - ends[0]) * top), 0, top)
    have = affine_error(bins, low, high, off, top)
    if np.ptp(code) == 0:
        assert have == pytest.approx(float(middles.var()), rel=1e-9)
        return
    slope, shift = np.polyfit(code, middles, 1)
    want = float(np.mean((middles - slope * code - shift) ** 2))
    assert have == pytest.approx(want, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_is_nearly_the_best_of_a_plain_search(bits: int) -> None:
    """Ends and offset on a grid of 20 x 20 x 20: none is better by more than 3 %."""
    histogram = _of(_layer())
    whole = Range(histogram.low, histogram.high)
    found = fit_slr(histogram, whole, bits, search_ends=True)
    bins, top = histogram.bins(), 2**bits - 1
    assert found.error == pytest.approx(
        affine_error(bins, found.low, found.high, found.offset, top), rel=0.02
    )
    shares = np.geomspace(1 / 64, 1, 20)
    least = min(
        affine_error(
            bins,
            a * whole.low,
            b * whole.high,
            r * (b * whole.high - a * whole.low) - a * whole.low,
            top,
        )
        for a in shares
        for b in shares
        for r in np.geomspace(1 / 64, farthest(bits), 20)
    )
    assert found.error <= least * 1.03


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_logarithm_beats_the_best_free_uniform_grid(bits: int) -> None:
    """The module's text: levels are evenly apart, so the nearest one is the best code.

    Lloyd's algorithm with even levels finds the best uniform grid; SLR's error is not below it.
    """
    x = _layer(3)
    bins = _of(x).bins()
    used = bins.counts > 0
    value, share = bins.centres[used], bins.counts[used] / bins.counts.sum()
    levels = np.arange(2**bits)
    least = np.inf
    for start in np.quantile(x, [0.001, 0.01, 0.05]):
        for end in np.quantile(x, [0.9, 0.98, 0.999]):
            step, shift = (end - start) / levels[-1], float(start)
            for _ in range(200):
                code = np.clip(np.rint((value - shift) / step), 0, levels[-1])
                mean = np.dot(code, share)
                step = np.dot((code - mean) * value, share) / np.dot((code - mean) ** 2, share)
                shift = np.dot(value, share) - step * mean
            error = np.dot((value - shift - step * code) ** 2, share)
            least = min(least, float(error))
    found = fit_slr(_of(x), Range(float(x.min()), float(x.max())), bits, search_ends=True)
    assert found.error >= least * 0.98
    assert found.error <= least * 1.10


def test_given_ends_are_kept() -> None:
    """Where the method has set them, only the offset is searched."""
    found = fit_slr(_of(_layer()), Range(-0.5, 4.0), 4, search_ends=False)
    assert (found.low, found.high) == (-0.5, 4.0)
    assert found.offset > 0.5


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0, 1e-9, 2e5])
def test_constant_activations(value: float) -> None:
    """A little range around them, the logarithm's argument well above its smallest."""
    x = np.full(100, value, dtype=np.float32)
    found = fit_slr(_of(x), Range(float(x[0]), float(x[0])), 2, search_ends=True)
    assert found.low < found.high
    assert found.low + found.offset >= 1.9e-4
    assert np.isfinite(found.error)
