"""The growing histogram against numpy's, and that its result depends on the values alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qmdd.models import histogram as room
from qmdd.models.histogram import BINS, Histogram

F32 = npt.NDArray[np.float32]

values = arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.one_of(
        st.floats(-3, 3, width=32),
        st.floats(-(2.0**60), 2.0**60, width=32),
        st.sampled_from([0.0, -0.0, 1.0, 2.0**-126, -(2.0**-149)]),
    ),
)


def _of(*parts: F32) -> Histogram:
    found = Histogram()
    for part in parts:
        found.add(part)
    return found


@given(x=values)
def test_counts_are_those_of_numpy(x: F32) -> None:
    """Edges are whole multiples of a power of two; each value is counted in its own bin."""
    found = _of(x)
    counts, edges = found.bins()
    want, _ = np.histogram(x.astype(np.float64), edges)
    # numpy's last bin holds its right end too; ours never needs it.
    assert float(x.max()) < edges[-1]
    np.testing.assert_array_equal(counts, want)
    assert counts.sum() == found.total == x.size
    assert (found.low, found.high) == (x.min(), x.max())
    assert len(counts) <= BINS
    width = edges[1] - edges[0]
    assert math.frexp(width)[0] == 0.5
    np.testing.assert_array_equal(edges, np.arange(len(edges)) * width + edges[0])
    assert edges[0] <= min(0.0, float(x.min()))
    assert 0.0 in edges


@given(x=values, data=st.data())
def test_neither_order_nor_batches_matter(x: F32, data: st.DataObject) -> None:
    """Any order, any cut: the very same counts and edges."""
    order = data.draw(st.permutations(range(x.size)))
    cuts = sorted(data.draw(st.lists(st.integers(0, x.size), max_size=4)))
    whole = _of(x).bins()
    parts = _of(*np.split(x[np.asarray(order)], cuts)).bins()
    np.testing.assert_array_equal(parts.counts, whole.counts)
    np.testing.assert_array_equal(parts.edges, whole.edges)


@given(x=values)
def test_at_least_half_of_the_bins_lie_within_the_range(x: F32) -> None:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    counts, edges = _of(x).bins()
    width = edges[1] - edges[0]
    if width > 2.0**-100:
        assert len(counts) > BINS // 2
        assert high - low > (BINS // 2 - 1) * width


@given(x=values, most=st.sampled_from([1, 2, 3, 16, 100, 4096]))
def test_merged_bins_hold_the_same_values(x: F32, most: int) -> None:
    """Fewer, wider bins: numpy's counts for their edges; two stay where zero lies inside."""
    counts, edges = _of(x).bins(max(most, 2))
    assert len(counts) <= max(most, 2)
    want, _ = np.histogram(x.astype(np.float64), edges)
    np.testing.assert_array_equal(counts, want)
    assert 0.0 in edges


def test_values_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(0, 1, (7, 11, 13)).astype(np.float32)
    whole = _of(x).bins()
    monkeypatch.setattr(room, "_CHUNK", 10)
    np.testing.assert_array_equal(_of(x).bins().counts, whole.counts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        _of(np.array([1.0, bad, 2.0], dtype=np.float32))


def test_of_no_values() -> None:
    found = _of(np.zeros(0, dtype=np.float32))
    assert found.total == 0
    with pytest.raises(ValueError, match="no values"):
        found.bins()


@pytest.mark.parametrize("value", [0.0, 5.5, -1e20, 3e38])
def test_of_one_value(value: float) -> None:
    """All in the bin of that value, zero's bin among the bins."""
    x = np.full(10, value, dtype=np.float32)
    counts, edges = _of(x).bins()
    assert counts.sum() == 10
    held = int(np.flatnonzero(counts)[0])
    assert edges[held] <= float(x[0]) < edges[held + 1]
    assert 0.0 in edges


def test_memory_does_not_grow() -> None:
    """A million values more take no more counts."""
    found = _of(np.zeros(1, dtype=np.float32))
    rng = np.random.default_rng(1)
    for scale in (1.0, 1e3, 1e9):
        found.add(rng.normal(0, scale, 100_000).astype(np.float32))
        assert found._counts.nbytes == BINS * 8
