"""One bit: the sign of activations and of weights (ReActNet; Bi-Real Net's gradient)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from qmdd.models import CQB
from qmdd.models.float_order import neighbours
from qmdd.models.packing import pack_index, unpack_index
from qmdd.models.quantizers import (
    BinaryActivation,
    BinaryWeight,
    MinMaxActivation,
    SlrActivation,
    build_activation,
)

TINY = float(np.finfo(np.float32).smallest_subnormal)


def test_codes_are_the_sign() -> None:
    """1 from zero on, 0 below; -0.0 is zero, NaN is code 0."""
    quantizer = BinaryActivation()
    x = torch.tensor([-np.inf, -3.0, -TINY, -0.0, 0.0, TINY, 3.0, np.inf, np.nan])
    want = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert quantizer.codes(x).tolist() == want
    out = quantizer.encode(x)
    assert out.codes.tolist() == want
    assert (float(out.step), float(out.zero)) == (2.0, 0.0)
    assert quantizer(x).tolist() == [2 * code for code in want]


def test_the_threshold_is_zero_itself() -> None:
    """One entry, and the table is right on both sides of it and at both zeros."""
    quantizer = BinaryActivation()
    table = quantizer.table()
    assert table.tolist() == [0.0]
    x = np.append(neighbours(table, 4096).reshape(-1), np.float32(-0.0))
    codes = quantizer.codes(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(np.searchsorted(table, x, side="right"), codes)
    assert 0 < codes.sum() < codes.size


def _bi_real(x: torch.Tensor) -> torch.Tensor:
    """Bi-Real Net Eq. 6: -1; 2x + x^2; 2x - x^2; 1."""
    inner = torch.where(x < 0, 2 * x + x * x, 2 * x - x * x)
    return torch.where(x < -1, -torch.ones_like(x), torch.where(x < 1, inner, torch.ones_like(x)))


def test_the_gradient_is_bi_reals_triangle() -> None:
    """Central differences of the piecewise polynomial, in float64.

    They are exact for a parabola but for rounding (1e-16 over a width of 2e-6: 1e-10); the three
    joints have a slope on both sides (2 at 0; 0 at -1 and 1), and differences meet it to 1e-6.
    """
    joints = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    rng = np.random.default_rng(0)
    x = torch.cat([torch.from_numpy(rng.uniform(-1.6, 1.6, 500)), joints]).requires_grad_()
    upstream = torch.from_numpy(rng.normal(0, 1, x.numel()))
    BinaryActivation()(x).backward(upstream)
    width = 1e-6
    point = x.detach()
    slope = (_bi_real(point + width) - _bi_real(point - width)) / (2 * width)
    assert x.grad is not None
    have = x.grad / upstream
    crossed = (point[:, None] - joints).abs().min(dim=1).values <= width
    assert float((have - slope).abs()[~crossed].max()) <= 1e-9
    assert float((have - slope).abs()[crossed].max()) <= 1.01 * width
    assert int((have == 0).sum()) > 100  # flat outside
    assert float(have.max()) == 2.0


def test_value_and_polynomial_agree_beyond_one() -> None:
    """``2 code - 1`` is the sign that the polynomial approaches: equal where that is flat."""
    x = torch.tensor([-7.0, -1.0, 1.0, 7.0], dtype=torch.float64)
    assert (BinaryActivation()(x) - 1).tolist() == _bi_real(x).tolist() == [-1.0, -1.0, 1.0, 1.0]


def test_under_slr_the_sign_is_taken_of_the_logarithm() -> None:
    """``ln(x + off) >= 0``: the threshold is ``1 - off``, which tau moves."""
    quantizer = SlrActivation(BinaryActivation())
    with torch.no_grad():
        quantizer.tau.fill_(0.25)
        quantizer.running_max.fill_(0.5)  # off = 0.75
    x = torch.tensor([0.2, 0.24, 0.25, 0.3])
    assert quantizer.codes(x).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert quantizer.table().tolist() == [0.25]


def _weight() -> torch.Tensor:
    rng = np.random.default_rng(1)
    spread = np.exp(rng.uniform(-3, 1, (6, 1, 1, 1)))
    return torch.from_numpy((rng.normal(0, 1, (6, 5, 3, 3)) * spread).astype(np.float32))


def test_weights_are_signs_times_the_mean_magnitude() -> None:
    """XNOR-Net's L1 scale per output channel, rounded once from float64."""
    weight = _weight()
    frozen = BinaryWeight().freeze(weight)
    mean = np.abs(weight.numpy().astype(np.float64)).reshape(6, -1).mean(axis=1)
    np.testing.assert_array_equal(frozen.scale.numpy(), mean.astype(np.float32))
    np.testing.assert_array_equal(frozen.codes.numpy(), np.sign(weight.numpy()))
    value = BinaryWeight()(weight)
    want = frozen.codes * frozen.scale.reshape(-1, 1, 1, 1)
    # Training's mean is a float32 sum of 45, and its value comes of (s - c) + c: 1e-6 of 1 or of s.
    assert float((value - want).abs().max()) <= 1e-6 * max(1.0, float(frozen.scale.max()))


def test_a_weight_of_zero_counts_as_positive() -> None:
    """So does -0.0: one of the two codes, in training and frozen alike."""
    weight = torch.tensor([0.0, -0.0, 0.5, -0.5]).reshape(1, 4, 1, 1)
    frozen = BinaryWeight().freeze(weight)
    assert frozen.codes.flatten().tolist() == [1, 1, 1, -1]
    assert frozen.scale.tolist() == [0.25]
    assert BinaryWeight()(weight).flatten().tolist() == [0.25, 0.25, 0.25, -0.25]


def test_the_weights_gradient_passes_up_to_one() -> None:
    """As published: straight through where ``|w| <= 1``, nothing beyond; the scale is held."""
    weight = torch.tensor([-1.5, -1.0, -0.3, 0.0, 0.7, 1.0, 1.0001, 9.0], dtype=torch.float64)
    weight = weight.reshape(2, 4, 1, 1).requires_grad_()
    upstream = torch.from_numpy(np.random.default_rng(2).normal(0, 1, (2, 4, 1, 1)))
    BinaryWeight()(weight).backward(upstream)
    passes = torch.tensor([0, 1, 1, 1, 1, 1, 0, 0]).reshape(2, 4, 1, 1)
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream * passes)


def test_a_dead_channel_keeps_a_positive_scale() -> None:
    """All weights zero: a tiny scale, so that evaluation is finite and the channel says nothing."""
    weight = _weight()
    weight[3] = 0.0
    frozen = BinaryWeight().freeze(weight)
    assert 0 < float(frozen.scale[3]) < 1e-6
    assert set(frozen.codes[3].flatten().tolist()) == {1}
    value = BinaryWeight()(weight)
    assert bool(torch.isfinite(value).all())
    assert float(value[3].abs().max()) < 1e-6


def test_codes_pack_eight_to_the_byte() -> None:
    """-1 is index 0, 1 is index 1, in the lowest bits first."""
    book = BinaryWeight().codebook()
    assert book.tolist() == [-1, 1]
    codes = BinaryWeight().freeze(_weight()).codes.numpy().reshape(-1)
    index = np.searchsorted(book, codes).astype(np.uint8)
    packed = pack_index(index, 1)
    assert packed.size == -(-codes.size // 8)
    np.testing.assert_array_equal(book[unpack_index(packed, 1, codes.size)], codes)


@pytest.mark.parametrize("bits", [0, 2, 8])
def test_binary_is_of_one_bit(bits: int) -> None:
    """Both quantizers say so."""
    for kind in (BinaryActivation, BinaryWeight):
        with pytest.raises(ValueError, match=f"one bit, not of {bits}"):
            kind(bits)


@pytest.mark.parametrize("kind", ["minmax", "lsq", "n2uq", "binary"])
@pytest.mark.parametrize("slr", [False, True])
@pytest.mark.parametrize("weight", ["n2uq", "binary"])
def test_one_bit_layers_compute_what_they_learned(kind: str, slr: bool, weight: str) -> None:
    """A convolution of one bit: evaluation is training's values through frozen statistics.

    Batch-norm runs on statistics in both, so what differs is rounding (1e-5 of the largest) and
    inputs at a tie, of which normal numbers have none. SLR's ``max|X|`` is above 1 in both.
    """
    torch.manual_seed(5)
    layer = CQB(6, 4, 3, bits=1, activation=kind, weight=weight, slr=slr)
    x = torch.from_numpy(np.random.default_rng(3).normal(0, 1, (4, 6, 7, 7)).astype(np.float32))
    with torch.no_grad():
        layer(x)
        layer.conv.bn.eval()
        for module in layer.modules():
            if isinstance(module, MinMaxActivation):
                module.low.fill_(-0.4)
                module.high.fill_(1.2)
                module.eval()  # does not follow its input any more
        trained = layer(x)
        have = layer.eval()(x)
        codes = layer.act.codes(x).codes
    assert set(codes.unique().tolist()) == {0.0, 1.0}
    assert float((have - trained).abs().max()) <= 1e-5 * float(trained.abs().max())


def test_a_quantizer_of_one_bit_has_one_threshold() -> None:
    """Whatever its kind."""
    for kind, slr in itertools.product(["minmax", "lsq", "n2uq", "binary"], [False, True]):
        assert build_activation(kind, 1, slr).table().shape == (1,)
