"""N2UQ's two ways to the same gradient: a pass for each knot, or a look-up of each segment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qmdd.models.quantizers import n2uq


@given(count=st.sampled_from([1, 3, 7, 15, 255]), seed=st.integers(0, 1000))
def test_slope_and_sums_are_equal(count: int, seed: int) -> None:
    """Slopes to the rounding of a running sum, sums to that of float32; ends and ties included."""
    rng = np.random.default_rng(seed)
    gaps = torch.from_numpy(rng.uniform(0.3, 1.7, count).astype(np.float32) * 2 / count)
    start = torch.tensor(rng.uniform(-0.5, 0.5), dtype=torch.float32)
    knots = torch.cat([start.reshape(1), start + gaps.cumsum(0)])
    spread = torch.from_numpy(rng.normal(0.7, 1.0, (3, 5, 40)).astype(np.float32))
    v = torch.cat([spread.flatten(), knots]).reshape(1, -1)
    grad = torch.from_numpy(rng.normal(0, 1, tuple(v.shape)).astype(np.float32))
    slow, fast = (f(v, grad, knots, gaps) for f in (n2uq._by_pass, n2uq._by_segment))
    steep = float((1 / gaps).max())
    for have, want in zip(fast, slow, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5 * max(steep, v.numel()))
    assert torch.equal(fast[0] != 0, (v > knots[0]) & (v <= knots[-1]))


@pytest.mark.parametrize("count", [7, 15])
def test_training_codes_count_the_thresholds_below(count: int) -> None:
    """Strictly below, on both sides of the switch; NaN passes none; any memory layout."""
    thresholds = torch.linspace(-1, 1, count)
    v = torch.cat([thresholds, thresholds + 1e-3, torch.tensor([float("nan"), 9.0])])
    v = torch.stack([v, v.flip(0)]).T
    assert not v.is_contiguous()
    want = (v[..., None] > thresholds).sum(-1).to(v.dtype)
    assert torch.equal(n2uq._count(v, thresholds), want)
