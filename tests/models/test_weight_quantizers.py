"""Weight quantizers: values, gradients, and the integer codes they freeze to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from qmdd.models import Detector
from qmdd.models.checkpoint import load_weights
from qmdd.models.quantizers import (
    BinaryWeight,
    LsqWeight,
    MinMaxWeight,
    N2uqWeight,
    WeightQuantizer,
    build_weight,
    per_channel,
)

F64 = npt.NDArray[np.float64]
KINDS = ("minmax", "lsq", "n2uq")
BITS = (2, 3, 4, 8)
#: Every kind at every width that it has.
CASES = [*itertools.product(KINDS, BITS), ("n2uq", 1), ("binary", 1)]


def _weight(seed: int, shape: tuple[int, ...] = (6, 5, 3, 3)) -> Tensor:
    """Channels of quite different magnitude."""
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.uniform(-4, 2, (shape[0], 1, 1, 1)))
    return torch.from_numpy((rng.normal(0, 1, shape) * spread).astype(np.float32))


def _trained(kind: str, bits: int, weight: Tensor, seed: int = 3) -> WeightQuantizer:
    """Parameters moved off their initial values."""
    rng = np.random.default_rng([seed, bits])
    quantizer = build_weight(kind, bits, weight)
    with torch.no_grad():
        if isinstance(quantizer, N2uqWeight):
            quantizer.clip_val.fill_(rng.uniform(1.4, 2.7))
        elif isinstance(quantizer, LsqWeight):
            factors = rng.uniform(0.6, 1.5, weight.shape[0])
            quantizer.raw_step.mul_(torch.from_numpy(factors))
    return quantizer


def _reference(quantizer: WeightQuantizer, weight: Tensor) -> F64:
    """Fake-quantised weights by the published formulas, in plain float64 numpy."""
    w = weight.double().numpy()
    each = w.reshape(w.shape[0], -1)
    if isinstance(quantizer, N2uqWeight):
        # sf = mean|w| * (2^k - 1)/2^(k-1); sf * (round((clip(w/sf) + c/2) * n/c) * c/n - c/2).
        n, clip = 2**quantizer.bits - 1, float(quantizer.clip_val.detach())
        factor = np.abs(each).mean(axis=1) * n / 2 ** (quantizer.bits - 1)
        factor = factor.reshape(-1, 1, 1, 1)
        level = np.rint((np.clip(w / factor, -clip / 2, clip / 2) + clip / 2) * n / clip)
        return np.asarray(factor * (level * clip / n - clip / 2))
    if isinstance(quantizer, LsqWeight):
        # LSQ Eq. 1-2 with Q_N = 2^(k-1), Q_P = 2^(k-1) - 1.
        half = 2 ** (quantizer.bits - 1)
        step = quantizer.raw_step.detach().double().numpy().reshape(-1, 1, 1, 1)
        return np.asarray(np.rint(np.clip(w / step, -half, half - 1)) * step)
    if isinstance(quantizer, BinaryWeight):
        # XNOR-Net, ReActNet: sign(w) times mean|w| of the output channel.
        return np.abs(each).mean(axis=1).reshape(-1, 1, 1, 1) * np.sign(w)
    # Symmetric MinMax: the largest magnitude is the largest code, 2^(k-1) - 1.
    limit = 2 ** (quantizer.bits - 1) - 1
    step = np.abs(each).max(axis=1).reshape(-1, 1, 1, 1) / limit
    return np.asarray(np.rint(w / step) * step)


@pytest.mark.parametrize(("kind", "bits"), CASES)
def test_values_follow_the_published_formula(kind: str, bits: int) -> None:
    """N2UQ's weights, LSQ Eq. 1-2, symmetric MinMax, L1 sign; 1e-6 of each channel's largest."""
    weight = _weight(bits)
    quantizer = _trained(kind, bits, weight)
    have = quantizer(weight).detach().numpy()
    want = _reference(quantizer, weight)
    largest = np.abs(want).max(axis=(1, 2, 3), keepdims=True)
    assert np.abs((have - want) / largest).max() <= 1e-6


@pytest.mark.parametrize(("kind", "bits"), CASES)
def test_frozen_codes_times_scale_are_the_weights_of_training(kind: str, bits: int) -> None:
    """``weight = code * scale``, codes in the codebook; 1e-6 of each channel's largest."""
    weight = _weight(10 + bits)
    quantizer = _trained(kind, bits, weight)
    frozen = quantizer.freeze(weight)
    assert frozen.codes.dtype == torch.int16
    assert frozen.codes.shape == weight.shape
    assert frozen.scale.dtype == torch.float32
    assert frozen.scale.shape == (6,)
    assert np.isin(frozen.codes.numpy(), quantizer.codebook()).all()
    have = frozen.codes.double() * per_channel(frozen.scale.double(), weight)
    want = quantizer(weight).detach().double()
    largest = want.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert float(((have - want) / largest).abs().max()) <= 1e-6


@pytest.mark.parametrize(
    ("kind", "bits", "book"),
    [
        ("n2uq", 1, [-1, 1]),
        ("binary", 1, [-1, 1]),
        ("n2uq", 2, [-3, -1, 1, 3]),
        ("n2uq", 3, [-7, -5, -3, -1, 1, 3, 5, 7]),
        ("lsq", 2, [-2, -1, 0, 1]),
        ("lsq", 3, [-4, -3, -2, -1, 0, 1, 2, 3]),
        ("minmax", 2, [-1, 0, 1]),
        ("minmax", 3, [-3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_codebook_and_every_code_of_it_occurs(kind: str, bits: int, book: list[int]) -> None:
    """N2UQ's codes are the odd integers (2 bits: -3, -1, 1, 3); all of them are used."""
    weight = _weight(20, (8, 16, 3, 3))
    weight[:2, 0] *= 5  # outliers, which reach LSQ's last codes
    quantizer = build_weight(kind, bits, weight)
    assert quantizer.codebook().tolist() == book
    assert sorted(set(quantizer.freeze(weight).codes.flatten().tolist())) == book


@pytest.mark.parametrize(("kind", "bits"), CASES)
def test_codebooks_fit_their_width(kind: str, bits: int) -> None:
    """Ascending int16, no more than ``2^k`` entries: an index packs into ``k`` bits."""
    book = build_weight(kind, bits, torch.ones(1, 1, 1, 1)).codebook()
    assert book.dtype == np.int16
    assert book.size <= 2**bits
    assert np.all(np.diff(book) > 0)


@pytest.mark.parametrize(("kind", "bits"), CASES)
def test_a_channel_of_zeros_stays_finite(kind: str, bits: int) -> None:
    """A pruned channel has no magnitude to scale by: tiny values, no NaN, in both directions."""
    weight = _weight(30 + bits)
    weight[2] = 0.0
    quantizer = build_weight(kind, bits, weight)
    latent = weight.clone().requires_grad_()
    value = quantizer(latent)
    value.square().sum().backward()
    assert bool(torch.isfinite(value).all())
    assert float(value[2].detach().abs().max()) < 1e-5
    assert latent.grad is not None
    assert bool(torch.isfinite(latent.grad).all())
    frozen = quantizer.freeze(weight)
    assert bool(torch.isfinite(frozen.scale).all())
    assert bool((frozen.scale > 0).all())
    assert np.isin(frozen.codes.numpy(), quantizer.codebook()).all()


def _close(have: Tensor | None, want: Tensor) -> None:
    """Within 1e-12 of the largest: float64 sums in another order."""
    assert have is not None
    assert float((have - want).abs().max()) <= 1e-12 * float(want.abs().max())


@pytest.mark.parametrize("bits", [1, *BITS])
def test_n2uq_gradient_is_that_of_the_clipped_weight(bits: int) -> None:
    """Straight through the rounding: autograd of ``sf * clamp(w/sf, -clip/2, clip/2)``, sf fixed.

    To the weight and to ``clip_val``. (N2UQ's released code differentiates ``w/sf`` unclipped.)
    """
    weight = _weight(40 + bits).double().requires_grad_()
    quantizer = _trained("n2uq", bits, weight.detach()).double()
    assert isinstance(quantizer, N2uqWeight)
    upstream = torch.from_numpy(np.random.default_rng(bits).normal(0, 1, weight.shape))
    quantizer(weight).backward(upstream)

    latent = weight.detach().clone().requires_grad_()
    clip = quantizer.clip_val.detach().clone().requires_grad_()
    mean = latent.detach().abs().mean(dim=(1, 2, 3), keepdim=True)
    factor = mean * (2**bits - 1) / 2 ** (bits - 1)
    scaled = latent / factor
    clipped = torch.where(scaled < clip / 2, scaled, clip / 2)
    clipped = torch.where(clipped > -clip / 2, clipped, -clip / 2)
    assert bool((clipped.abs() < clip / 2).any())
    assert bool((clipped == clip / 2).any())
    (clipped * factor).backward(upstream)
    assert latent.grad is not None
    assert clip.grad is not None
    _close(weight.grad, latent.grad)
    _close(quantizer.clip_val.grad, clip.grad)


@pytest.mark.parametrize("bits", BITS)
def test_lsq_gradient_is_its_closed_form_per_channel(bits: int) -> None:
    """LSQ Eq. 3 and 5: ``round(v) - v`` inside, ``-Q_N``/``Q_P`` outside; ``1/sqrt(n * Q_P)``.

    ``n`` counts the weights that share the step: one channel's.
    """
    weight = _weight(50 + bits).double().requires_grad_()
    quantizer = _trained("lsq", bits, weight.detach()).double()
    assert isinstance(quantizer, LsqWeight)
    upstream = torch.from_numpy(np.random.default_rng(bits).normal(0, 1, weight.shape))
    quantizer(weight).backward(upstream)

    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    v = weight.detach() / per_channel(quantizer.raw_step.detach(), weight)
    inside = (v > low) & (v < high)
    assert bool(inside.any())
    slope = torch.where(inside, v.round() - v, v.clamp(low, high))
    scale = 1.0 / math.sqrt(5 * 3 * 3 * high)
    _close(quantizer.raw_step.grad, (slope * upstream).sum(dim=(1, 2, 3)) * scale)
    _close(weight.grad, upstream * inside)


@pytest.mark.parametrize("bits", BITS)
def test_minmax_passes_the_gradient_straight_through(bits: int) -> None:
    """Nothing is clipped (the largest weight sets the scale), so the gradient is the upstream's."""
    weight = _weight(60 + bits).double().requires_grad_()
    quantizer = MinMaxWeight(bits)
    upstream = torch.from_numpy(np.random.default_rng(bits).normal(0, 1, weight.shape))
    quantizer(weight).backward(upstream)
    # Beside the largest weight itself, whose quotient may round past the last code.
    largest = weight.detach().abs() == weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    assert weight.grad is not None
    _close(weight.grad[~largest], upstream[~largest])


def test_lsq_weight_steps_start_at_the_published_value() -> None:
    """LSQ section 2.1 per channel: ``2 <|w|> / sqrt(Q_P)``."""
    weight = _weight(70)
    quantizer = LsqWeight(4, weight)
    want = 2 * weight.double().abs().mean(dim=(1, 2, 3)) / math.sqrt(7)
    torch.testing.assert_close(quantizer.raw_step.detach().double(), want, rtol=1e-6, atol=0)


def test_an_unknown_kind_is_refused() -> None:
    """The message lists the kinds that there are."""
    with pytest.raises(ValueError, match="minmax, lsq, n2uq, binary"):
        build_weight("ternary", 2, torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("kind", ["lsq", "minmax"])
def test_one_bit_leaves_these_grids_no_level(kind: str) -> None:
    """Refused: codes 0 and -1, or 0 alone, would make a scale of infinity."""
    with pytest.raises(ValueError, match=f"{kind} has no level .* of one bit"):
        build_weight(kind, 1, torch.ones(1, 1, 1, 1))


def test_lsq_steps_fit_the_weights_that_training_starts_from(
    tiny_detector: Callable[..., Detector],
) -> None:
    """From full-precision weights a hundred times smaller, codes must not all be 0."""
    twin, quantised = tiny_detector(bits=32), tiny_detector(bits=2, weight="lsq")
    conv = twin.get_submodule("stages.0.0.conv1.conv")
    with torch.no_grad():
        conv.weight.mul_(0.01)
    load_weights(quantised, twin)
    frozen = quantised.get_submodule("stages.0.0.conv1.conv").frozen()
    assert len(frozen.codes.unique()) == 4


def test_a_clip_that_training_drove_to_zero() -> None:
    """Held above SMALLEST_CLIP: finite weights and gradients, in training and frozen."""
    quantizer, weight = N2uqWeight(2), torch.randn(4, 3, 3, 3, requires_grad=True)
    with torch.no_grad():
        quantizer.clip_val.zero_()
    quantizer(weight).sum().backward()
    assert weight.grad is not None
    assert bool(weight.grad.isfinite().all())
    assert bool(quantizer.freeze(weight).scale.isfinite().all())
