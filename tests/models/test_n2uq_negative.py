"""N2UQ with a negative input scale: published values, codes counted from the other end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qmdd.models import Codes, QuantConv2d
from qmdd.models.float_order import neighbours
from qmdd.models.quantizers import N2uqActivation, SlrActivation

BITS = (1, 2, 3, 4, 8)


def _falling(bits: int, seed: int = 0) -> N2uqActivation:
    rng = np.random.default_rng([seed, bits])
    quantizer = N2uqActivation(bits)
    with torch.no_grad():
        quantizer.a.copy_(
            torch.from_numpy(rng.uniform(0.2, 1.6, quantizer.top) * 2 / quantizer.top)
        )
        quantizer.start.fill_(rng.uniform(-0.4, 0.1))
        quantizer.scale1.fill_(-rng.uniform(0.7, 1.6))
        quantizer.scale2.fill_(rng.uniform(0.7, 1.6))
    return quantizer.eval().requires_grad_(False)


def _inputs() -> Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.normal(0, 1.5, 4000).astype(np.float32))


@pytest.mark.parametrize("bits", BITS)
def test_values_are_the_published_ones(bits: int) -> None:
    """``#{i: scale1 x > T_i}`` steps, in float64; training's own values within its rounding."""
    quantizer, x = _falling(bits), _inputs()
    gaps = quantizer.a.double().numpy()
    thresholds = float(quantizer.start) + np.cumsum(gaps) - gaps / 2
    passed = (x.double().numpy()[:, None] * float(quantizer.scale1) > thresholds).sum(axis=1)
    want = passed * float(quantizer.scale2) * 2 / quantizer.top
    encoded = quantizer.encode(x)
    assert float(encoded.zero) == quantizer.top
    have = encoded.centred().double().numpy() * float(encoded.step)
    np.testing.assert_allclose(have, want, rtol=1e-7, atol=0)
    np.testing.assert_allclose(quantizer(x).numpy(), want, rtol=1e-6, atol=0)
    assert np.unique(passed).size >= min(quantizer.top + 1, 200)  # the test sees something


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("slr", [False, True])
def test_codes_rise_and_have_a_table(bits: int, slr: bool) -> None:
    """The table says every code, beside each threshold, at both infinities and for NaN."""
    inner = _falling(bits)
    quantizer = SlrActivation(inner).eval() if slr else inner
    table = quantizer.table()
    finite = table[np.isfinite(table)]
    assert finite.size > 0
    x = np.concatenate([neighbours(finite, 40).reshape(-1), _inputs().numpy(), [-np.inf, np.inf]])
    codes = quantizer.codes(torch.from_numpy(x.astype(np.float32))).numpy()
    np.testing.assert_array_equal(codes, np.searchsorted(table, x, side="right"))
    assert quantizer.codes(torch.tensor([float("nan")])).tolist() == [0.0]
    assert float(quantizer.zero) == inner.top


def test_at_a_tie_the_threshold_is_not_passed() -> None:
    """``scale1 x == T_i`` does not pass, as published; the next float *below* does."""
    quantizer = N2uqActivation(2).eval()
    with torch.no_grad():
        quantizer.a.fill_(0.5)
        quantizer.start.fill_(-0.25)
        quantizer.scale1.fill_(-2.0)
    ties = np.float32([-0.5, -0.25, 0.0])  # thresholds 1.0, 0.5, 0.0
    at = quantizer.encode(torch.from_numpy(ties))
    below = quantizer.encode(torch.from_numpy(np.nextafter(ties, np.float32(-np.inf))))
    unit = float(quantizer.scale2.detach()) * 2 / 3
    passed = [e.centred().detach().numpy() * float(e.step.detach()) / unit for e in (at, below)]
    np.testing.assert_allclose(passed[0], [2, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(passed[1], [3, 2, 1], rtol=1e-6)


def test_a_convolution_pads_with_the_value_zero() -> None:
    """Against float64 on the published values, padded with 0."""
    quantizer = _falling(2)
    torch.manual_seed(0)
    conv = QuantConv2d(3, 5, 3, padding=1, bits=2).eval().requires_grad_(False)
    x = _inputs()[: 2 * 3 * 8 * 8].reshape(2, 3, 8, 8)
    encoded = quantizer.encode(x)
    assert isinstance(encoded, Codes)
    frozen = conv.frozen()
    weight = frozen.codes.double() * frozen.scale.double().reshape(-1, 1, 1, 1)
    values = quantizer(x).double()
    assert isinstance(conv.bn, nn.BatchNorm2d)
    want = F.conv2d(values, weight, padding=1) / np.sqrt(1 + conv.bn.eps)
    torch.testing.assert_close(conv(encoded).double(), want, rtol=1e-5, atol=1e-5)
