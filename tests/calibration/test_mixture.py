"""The knapsack against trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.mixture import (
    Choice,
    best_mixture,
    common_width,
    packed_bytes,
)

layers = st.lists(
    st.lists(
        st.builds(
            Choice,
            st.sampled_from([2, 3, 4, 8]),
            st.integers(0, 40),
            st.sampled_from([0.0, 0.5, 1.0, 3.0, 1e-7, 200.0]),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda choice: choice.bits,
    ),
    min_size=1,
    max_size=5,
)


@given(found=layers, budget=st.integers(0, 200), fixed=st.integers(0, 30))
def test_it_is_the_best_of_all(found: list[list[Choice]], budget: int, fixed: int) -> None:
    """Losses that are sums of halves are exact, so the least is met to the bit."""
    choices = {f"layer{i}": row for i, row in enumerate(found)}
    fitting = [
        combination
        for combination in itertools.product(*found)
        if sum(c.size for c in combination) <= budget - fixed
    ]
    assume(fitting)
    mixture = best_mixture(choices, budget, fixed)
    least = min(sum(c.loss for c in combination) for combination in fitting)
    assert mixture.loss == pytest.approx(least, rel=1e-12, abs=1e-15)
    assert mixture.size <= budget - fixed
    chosen = [next(c for c in choices[name] if c.bits == b) for name, b in mixture.bits.items()]
    assert list(mixture.bits) == list(choices)
    assert sum(c.size for c in chosen) == mixture.size
    assert sum(c.loss for c in chosen) == pytest.approx(mixture.loss)


def test_a_budget_below_the_narrowest() -> None:
    """The message has both numbers, what is spent beforehand among them."""
    with pytest.raises(CalibrationError, match=r"99 bytes is less than the 1,110"):
        best_mixture({"a": [Choice(2, 1000, 1.0)], "b": [Choice(2, 100, 1.0)]}, 99, 10)


def test_a_network_of_a_real_size() -> None:
    """53 layers, four widths: the frontier stays small enough to be exact."""
    rng = np.random.default_rng(0)
    choices = {}
    for index in range(53):
        weights, loss = int(rng.integers(300, 3000)) * 32, rng.uniform(0, 1)
        widths = (2, 3, 4, 8)
        row = [Choice(b, packed_bytes(weights, b), loss * 4.0**-b) for b in widths]
        choices[str(index)] = row
    total = sum(row[-1].size for row in choices.values())
    losses = [best_mixture(choices, int(total * share)).loss for share in (0.3, 0.5, 0.8, 1.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(sum(row[-1].loss for row in choices.values()))


@pytest.mark.parametrize("loss", [-1.0, float("nan"), float("inf")])
def test_losses_that_are_none(loss: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        best_mixture({"a": [Choice(2, 1, loss)]}, 10)


def test_bytes_and_widths() -> None:
    assert packed_bytes(9, 2) == 3
    assert packed_bytes(9, 8) == 9
    assert common_width([2, 8, 8, 4, 2]) == 8
