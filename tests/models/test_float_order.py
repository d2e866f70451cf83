"""The ordered line of float32 numbers and the bisection on it (DESIGN 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmdd.models.float_order import (
    MAX_KEY,
    bisect_thresholds,
    float_from_key,
    key_from_float,
    neighbours,
)

F32 = npt.NDArray[np.float32]
LARGEST = np.finfo(np.float32).max
TINY = np.float32(1.401298464324817e-45)
BITS = st.integers(0, 2**32 - 1)


def _from_bits(bits: int) -> np.float32:
    return np.float32(np.array(bits, dtype=np.uint32).view(np.float32))


@given(BITS)
@example(0x80000000)
@example(0x7F800000)
@example(0xFF800000)
@example(0x80000001)
def test_keys_are_invertible_on_every_bit_pattern(bits: int) -> None:
    """key -> float gives the bits back; only ``-0.0`` comes back as ``+0.0``."""
    back = float_from_key(key_from_float(_from_bits(bits))).view(np.uint32)
    assert int(back) == (0 if bits == 0x80000000 else bits)


@given(BITS, BITS)
@example(0, 0x80000000)
@example(0x00000001, 0x80000001)
@example(0x7F7FFFFF, 0x7F800000)
def test_keys_are_ordered_as_the_numbers_are(first: int, second: int) -> None:
    """``key(a) < key(b)`` exactly when ``a < b``, equal exactly when equal (NaN left out)."""
    a, b = _from_bits(first), _from_bits(second)
    if np.isnan(a) or np.isnan(b):
        return
    key_a, key_b = int(key_from_float(a)), int(key_from_float(b))
    assert (key_a < key_b) == bool(a < b)
    assert (key_a == key_b) == bool(a == b)


@given(BITS)
def test_the_next_key_is_the_next_float(bits: int) -> None:
    """Keys leave no gap: key + 1 is numpy's ``nextafter``."""
    x = _from_bits(bits)
    if np.isnan(x) or np.isinf(x):
        return
    after = np.nextafter(x, np.float32(np.inf))
    assert float_from_key(key_from_float(x) + 1) == after


def test_largest_key_is_the_largest_finite_float() -> None:
    """``MAX_KEY`` and ``-MAX_KEY`` are the ends of the finite line."""
    assert float_from_key(MAX_KEY) == LARGEST
    assert float_from_key(-MAX_KEY) == -LARGEST
    assert float_from_key(MAX_KEY + 1) == np.inf


def test_neighbours_cross_zero_and_stop_at_the_ends() -> None:
    """Around zero they change sign through one zero; past the largest float nothing infinite."""
    got = neighbours(np.float32(0.0), 2)
    np.testing.assert_array_equal(got, np.array([-2, -1, 0, 1, 2]) * TINY)
    assert np.all(np.isfinite(neighbours(np.array([LARGEST, -LARGEST], np.float32), 3)))
    assert neighbours(np.zeros((2, 3), np.float32), 4).shape == (2, 3, 9)


def _counting(thresholds: F32) -> Callable[[F32], npt.NDArray[np.int64]]:
    """Step functions that count thresholds ``<= x``, row by row."""

    def codes(x: F32) -> npt.NDArray[np.int64]:
        count: npt.NDArray[np.int64] = (x[:, :, None] >= thresholds[:, None, :]).sum(axis=2)
        return count

    return codes


NUMBERS = BITS.map(_from_bits).filter(lambda x: not np.isnan(x))


@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=5))
@example([[np.float32(-0.0), np.float32(0.0), TINY]])
@example([[-TINY, np.float32(0.0), np.float32(0.0)]])
@example([[np.float32(-np.inf), -LARGEST, np.float32(np.inf)]])
def test_bisection_finds_the_thresholds_of_a_counting_function(rows: list[list[float]]) -> None:
    """Any thresholds, equal ones, both zeros and infinities too, come back to the bit."""
    thresholds = np.sort(np.array(rows, dtype=np.float32), axis=1)
    got = bisect_thresholds(_counting(thresholds), rows=len(rows), top=3)
    np.testing.assert_array_equal(got, thresholds)


@given(st.integers(0, 2**32 - 1))
def test_bisection_agrees_with_brute_force_around_each_step(seed: int) -> None:
    """Random monotone functions (float64 arithmetic, logarithm, rounding) beside every step.

    The table is the definition that DESIGN 3.2 wants: ``code(x) = #{i: T_i <= x}`` on all floats
    within 200 neighbours of each threshold.
    """
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.05, 20, 4), rng.normal(0, 3, 4)
    top = int(rng.choice([1, 3, 7, 15]))

    def codes(x: F32) -> npt.NDArray[np.int64]:
        wide = np.maximum(x.astype(np.float64) + shift[:, None], 1e-4)
        return np.clip(np.rint(np.log(wide) * scale[:, None]), 0, top).astype(np.int64)

    table = bisect_thresholds(codes, rows=4, top=top)
    assert table.dtype == np.float32
    assert table.shape == (4, top)
    for row in range(4):
        finite = table[row][np.isfinite(table[row])]
        x = neighbours(finite, 200).reshape(1, -1)
        want = codes(np.repeat(x, 4, axis=0))[row]
        have = (x[0][:, None] >= table[row][None, :]).sum(axis=1)
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_constant_function_has_infinite_thresholds(code: int) -> None:
    """``-inf`` for the codes every float reaches, ``+inf`` for those none does."""
    table = bisect_thresholds(lambda x: np.full(x.shape, code), rows=2, top=3)
    want = [-np.inf] * code + [np.inf] * (3 - code)
    np.testing.assert_array_equal(table, [want, want])


def test_a_step_at_the_very_ends_is_found() -> None:
    """Only the largest float reaches code 1; only the smallest misses it; minus infinity alone."""
    high = bisect_thresholds(lambda x: (x >= LARGEST).astype(np.int64), rows=1, top=1)
    low = bisect_thresholds(lambda x: (x > -LARGEST).astype(np.int64), rows=1, top=1)
    lowest = bisect_thresholds(lambda x: (x > -np.inf).astype(np.int64), rows=1, top=1)
    assert high[0, 0] == LARGEST
    assert low[0, 0] == np.nextafter(np.float32(-LARGEST), np.float32(0))
    assert lowest[0, 0] == -LARGEST


def test_a_strict_step_at_zero_starts_at_the_smallest_positive_float() -> None:
    """``x > 0`` and ``x >= 0`` differ by one neighbour, and the sign of zero does not matter."""
    strict = bisect_thresholds(lambda x: (x > 0).astype(np.int64), rows=1, top=1)
    weak = bisect_thresholds(lambda x: (x >= 0).astype(np.int64), rows=1, top=1)
    assert strict[0, 0] == TINY
    assert weak[0, 0] == 0.0
    assert not np.signbit(weak[0, 0])


def test_it_takes_few_evaluations() -> None:
    """32 halvings of the line, and a look at its lower end (DESIGN 3.2)."""
    calls = []

    def codes(x: F32) -> npt.NDArray[np.int64]:
        calls.append(x.shape)
        return (x > np.float32(0.3)).astype(np.int64)

    bisect_thresholds(codes, rows=1, top=1)
    assert len(calls) <= 34
