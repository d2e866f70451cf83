"""Weight steps: no other step is better; dead channels and other odd weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qmdd.calibration.weight_steps import dead_channels, fit_weight_steps
from qmdd.models.quantizers import LsqWeight, per_channel


def _weight(seed: int, channels: int = 6, size: int = 360) -> Tensor:
    """Channels from nearly uniform to heavy-tailed, of very different scales."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_t(df, size) * scale for df, scale in zip((1, 2, 4, 50), (1, 30, 0.01, 2))]  # noqa: B905
    rows += [rng.uniform(-1, 1, size), np.abs(rng.normal(0, 1, size))]
    return torch.from_numpy(np.stack(rows[:channels])).float().reshape(channels, size // 9, 3, 3)


def _error(weight: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    wide = weight.double().flatten(1)
    codes = (wide / step.double().unsqueeze(1)).clamp(low, high).round()
    return (codes * step.double().unsqueeze(1) - wide).square().sum(1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@settings(max_examples=15)
@given(seed=st.integers(0, 40))
def test_no_step_of_a_dense_search_is_better(bits: int, seed: int) -> None:
    """400 steps a channel: none has an error smaller by more than 4 % and 2e-5 of ``|w|^2``.

    The latter is felt at 8 bits, where a few hundred weights meet as many levels and the error,
    1e-4 of ``|w|^2`` and less, jumps from one step to the next.
    """
    weight = _weight(seed)
    quantizer = LsqWeight(bits, weight)
    fit_weight_steps(quantizer, weight)
    have = _error(weight, quantizer.raw_step.detach(), quantizer.low, quantizer.high)
    largest = weight.flatten(1).abs().amax(1) / quantizer.high
    best = have.clone()
    for share in np.geomspace(1 / 40, 1.2, 400):
        best = torch.minimum(best, _error(weight, largest * share, quantizer.low, quantizer.high))
    slack = 0.04 * best + 2e-5 * weight.double().flatten(1).square().sum(1)
    assert bool((have <= best + slack).all())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_better_than_the_largest_and_lsqs_own(bits: int) -> None:
    """Never worse than clipping nothing, nor than LSQ's initial ``2 E|w| / sqrt(Q_P)``."""
    weight = _weight(1)
    quantizer = LsqWeight(bits, weight)
    first = quantizer.raw_step.detach().clone()
    fit_weight_steps(quantizer, weight)
    ends = (quantizer.low, quantizer.high)
    have = _error(weight, quantizer.raw_step.detach(), *ends)
    for other in (first, weight.flatten(1).abs().amax(1) / quantizer.high):
        assert bool((have <= _error(weight, other, *ends) * (1 + 1e-5)).all())


def test_a_grid_is_found_again() -> None:
    """Weights that are codes times a step have no error, whatever the step."""
    codes = torch.tensor([[-2.0, 1.0, 0.0, -1.0], [1.0, 1.0, -2.0, 0.0]]).reshape(2, 4, 1, 1)
    step = torch.tensor([0.37, 41.0])
    weight = codes * per_channel(step, codes)
    quantizer = LsqWeight(2, weight)
    fit_weight_steps(quantizer, weight)
    assert quantizer.raw_step.tolist() == pytest.approx(step.tolist(), rel=1e-6)
    assert torch.equal(quantizer.freeze(weight).codes.float(), codes)


def test_dead_channels_have_codes_of_zero() -> None:
    """Weights of nothing but 0: counted, codes 0, a finite scale; its neighbours as ever."""
    weight = _weight(2)
    alone = LsqWeight(4, weight[1:])
    fit_weight_steps(alone, weight[1:])
    weight[0] = 0.0
    assert dead_channels(weight) == 1
    quantizer = LsqWeight(4, weight)
    fit_weight_steps(quantizer, weight)
    frozen = quantizer.freeze(weight)
    assert not bool(frozen.codes[0].any())
    assert bool(torch.isfinite(frozen.scale).all())
    assert torch.equal(quantizer.raw_step[1:], alone.raw_step)


def test_tiny_weights() -> None:
    """Below LSQ's smallest step the codes are 0; nothing divides by 0."""
    weight = torch.full((2, 3, 1, 1), 1e-38)
    quantizer = LsqWeight(2, weight)
    fit_weight_steps(quantizer, weight)
    assert bool(torch.isfinite(quantizer.raw_step).all())
    assert not bool(quantizer.freeze(weight).codes.any())
