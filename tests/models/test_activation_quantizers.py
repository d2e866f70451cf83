"""Activation quantizers: codes against the published formulas, tables against codes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qmdd.models.float_order import float_from_key, key_from_float, neighbours
from qmdd.models.quantizers import (
    ActivationQuantizer,
    BinaryActivation,
    LsqActivation,
    MinMaxActivation,
    N2uqActivation,
    SlrActivation,
    build_activation,
)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

KINDS = ("minmax", "lsq", "n2uq")
BITS = (1, 2, 3, 4, 8)
#: Every kind at every width that it has, alone and under SLR.
CASES = [
    *itertools.product(KINDS, (False, True), BITS),
    *itertools.product(("binary",), (False, True), (1,)),
]
LARGEST = float(np.finfo(np.float32).max)


def _inner(quantizer: ActivationQuantizer) -> ActivationQuantizer:
    return quantizer.inner if isinstance(quantizer, SlrActivation) else quantizer


def _trained(kind: str, slr: bool, bits: int, seed: int = 0) -> ActivationQuantizer:
    """A quantizer with parameters that training might have left, none of them round."""
    rng = np.random.default_rng([seed, bits, slr])
    quantizer = build_activation(kind, bits, slr)
    inner = _inner(quantizer)
    with torch.no_grad():
        if isinstance(inner, N2uqActivation):
            gaps = rng.uniform(0.2, 1.6, inner.top) * 2 / inner.top
            gaps[rng.integers(inner.top)] = -0.01  # held at the smallest gap
            inner.a.copy_(torch.from_numpy(gaps))
            inner.start.fill_(rng.uniform(-0.4, 0.1))
            inner.scale1.fill_(rng.uniform(0.7, 1.6))
            inner.scale2.fill_(rng.uniform(0.7, 1.6))
        elif isinstance(inner, LsqActivation):
            inner.raw_step.fill_(rng.uniform(0.5, 2.0) / inner.top)
            inner.initialised.fill_(1.0)
        elif isinstance(inner, MinMaxActivation):
            inner.low.fill_(rng.uniform(-0.9, -0.2))
            inner.high.fill_(rng.uniform(0.5, 2.0))
            inner.seen.fill_(1.0)
        if isinstance(quantizer, SlrActivation):
            quantizer.tau.fill_(rng.uniform(-0.2, 0.3))
            quantizer.running_max.fill_(float(rng.choice([0.83, 7.5])))
            quantizer.seen.fill_(1.0)
    return quantizer.eval().requires_grad_(False)


def _minmax_grid(inner: MinMaxActivation) -> tuple[np.float32, int]:
    """Step and the code of zero of a range around zero: both are float32's, as they are stored."""
    low, high = np.float32(inner.low), np.float32(inner.high)
    assert low < 0 < high
    step = (high - low) / np.float32(inner.top)
    return step, int(np.rint(-low / step))


def _free_thresholds(inner: MinMaxActivation) -> F64:
    """Under SLR: paper Eq. 3's midpoints of the levels from ``low`` to ``high``, zero or not."""
    low, high = np.float32(inner.low), np.float32(inner.high)
    step = (high - low) / np.float32(inner.top)
    return float(low) + (np.arange(inner.top) + 0.5) * float(step)


def _wide_floats(seed: int, count: int = 4000) -> F32:
    """Values all over the usual range, values of every magnitude, random finite bit patterns."""
    rng = np.random.default_rng(seed)
    near = np.concatenate([rng.normal(0, 1.5, count), rng.uniform(-2, 12, 4 * count)])
    signs = rng.choice([-1.0, 1.0], count)
    spread = signs * np.exp(rng.uniform(np.log(1e-30), np.log(1e30), count))
    keys = rng.integers(-int(key_from_float(LARGEST)), int(key_from_float(LARGEST)), count)
    return np.concatenate([near, spread, float_from_key(keys)]).astype(np.float32)


def _codes(quantizer: ActivationQuantizer, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
    out = quantizer.codes(torch.from_numpy(np.asarray(x, dtype=np.float32)))
    assert out.dtype == torch.float32
    assert torch.equal(out, out.round())
    return out.numpy().astype(np.int64)


def _reference(quantizer: ActivationQuantizer, x: F32) -> npt.NDArray[np.int64]:
    """The published formulas once more, in plain float64 numpy."""
    wide = x.astype(np.float64)
    if isinstance(quantizer, SlrActivation):
        # Eq. 10-11: off = min(max|X|, eps) + tau; the thresholds meet ln(X + off).
        off = min(float(quantizer.running_max), quantizer.epsilon) + float(quantizer.tau)
        wide = np.log(np.maximum(wide + off, 1e-4))
    inner = _inner(quantizer)
    if isinstance(inner, N2uqActivation):
        # T_1 = start + a_0/2, T_(i+1) = T_i + a_(i-1)/2 + a_i/2; code = #{i: scale1*x > T_i}.
        gaps = [max(float(a), float(np.float32(1e-3))) for a in inner.a]
        threshold = float(inner.start) + gaps[0] / 2
        code = (wide * float(inner.scale1) > threshold).astype(np.int64)
        for before, here in itertools.pairwise(gaps):
            threshold += before / 2 + here / 2
            code += wide * float(inner.scale1) > threshold
        return code
    if isinstance(inner, LsqActivation):
        # LSQ Eq. 1: round(clip(x / s, 0, Q_P)).
        scaled = np.clip(wide / float(inner.raw_step), 0, inner.top)
        return np.rint(scaled).astype(np.int64)
    if isinstance(inner, BinaryActivation):
        # ReActNet Eq. 1: the sign; Eq. 10-11 above meet a threshold t_1 of 0.
        return (wide >= 0).astype(np.int64)
    assert isinstance(inner, MinMaxActivation)
    if isinstance(quantizer, SlrActivation):
        return np.asarray((wide[:, None] >= _free_thresholds(inner)).sum(axis=1))
    # Paper Eq. 3: with x scaled from the grid to [0, 2], t_i = (1 + 2(i-1)) / (2^k - 1).
    step, zero = _minmax_grid(inner)
    scaled = 2 * (wide / float(step) + zero) / inner.top
    thresholds = (1 + 2 * (np.arange(1, inner.top + 1) - 1)) / inner.top
    return np.asarray((scaled[:, None] >= thresholds).sum(axis=1))


@pytest.mark.parametrize(("kind", "slr", "bits"), CASES)
def test_codes_follow_the_published_formula(kind: str, slr: bool, bits: int) -> None:
    """N2UQ Eq. 5-6, LSQ Eq. 1, paper Eq. 3, each alone and behind paper Eq. 10-11; 0 differ."""
    quantizer = _trained(kind, slr, bits)
    x = _wide_floats(bits)
    want = _reference(quantizer, x)
    assert set(want) == set(range(2**bits))
    np.testing.assert_array_equal(_codes(quantizer, x), want)


@pytest.mark.parametrize(("kind", "slr", "bits"), CASES)
def test_table_equals_codes_around_every_threshold(kind: str, slr: bool, bits: int) -> None:
    """DESIGN 3.2: ``code(x) = #{i: T_i <= x}`` on 4096 neighbours either side; 0 wrong codes."""
    quantizer = _trained(kind, slr, bits)
    table = quantizer.table()
    assert table.dtype == np.float32
    assert table.shape == (2**bits - 1,)
    assert np.all(np.isfinite(table))
    assert np.all(np.diff(table) >= 0)
    for x in (neighbours(table, 4096).reshape(-1), _wide_floats(100 + bits)):
        have = np.searchsorted(table, x, side="right")
        np.testing.assert_array_equal(have, _codes(quantizer, x))


@pytest.mark.parametrize(("kind", "slr", "bits"), CASES)
def test_table_and_codes_agree_on_what_is_not_finite(kind: str, slr: bool, bits: int) -> None:
    """NaN is code 0, the infinities are the two ends, -0.0 is 0.0; in codes and in the table."""
    quantizer = _trained(kind, slr, bits)
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0], dtype=np.float32)
    got = _codes(quantizer, x)
    assert got[:3].tolist() == [0, 2**bits - 1, 0]
    assert got[3] == got[4]
    have = (x[:, None] >= quantizer.table()[None, :]).sum(axis=1)
    np.testing.assert_array_equal(have, got)


@pytest.mark.parametrize(("kind", "slr", "bits"), CASES)
def test_codes_never_decrease(kind: str, slr: bool, bits: int) -> None:
    """The one property the tables need."""
    quantizer = _trained(kind, slr, bits)
    codes = _codes(quantizer, np.sort(_wide_floats(200 + bits)))
    assert np.all(np.diff(codes) >= 0)


@pytest.mark.parametrize(("kind", "slr", "bits"), CASES)
def test_forward_is_centred_codes_times_step_away_from_thresholds(
    kind: str, slr: bool, bits: int
) -> None:
    """The fake-quantised value of training is evaluation's ``(code - zero) * step``.

    Forward computes in float32, so floats within 1e-5 of a threshold are left out; elsewhere it is
    off by its own last rounding at most: 1e-6 of the largest code, in codes.
    """
    quantizer = _trained(kind, slr, bits)
    x = np.random.default_rng(bits).normal(0, 1.5, 6000).astype(np.float32)
    table = quantizer.table()
    distance = np.abs(x[:, None] - table[None, :]).min(axis=1)
    x = x[distance > 1e-5 * (1 + np.abs(x))]
    assert x.size > 4000
    with torch.no_grad():
        value = quantizer(torch.from_numpy(x))
    assert value.dtype == torch.float32
    in_steps = (value.double() / quantizer.step.double()).numpy()
    encoded = quantizer.encode(torch.from_numpy(x))
    assert torch.equal(encoded.centred(), encoded.codes - encoded.zero)
    want = _codes(quantizer, x) - int(quantizer.zero)
    np.testing.assert_array_equal(encoded.centred().numpy(), want)
    assert np.unique(want).size > 2 ** (bits - 1)
    np.testing.assert_allclose(in_steps, want, rtol=0, atol=1e-6 * 2**bits)


@pytest.mark.parametrize("bits", BITS)
def test_n2uq_compares_strictly(bits: int) -> None:
    """N2UQ counts ``x > T_i``: a fresh quantizer's first threshold ``a_0/2`` itself is code 0."""
    quantizer = build_activation("n2uq", bits, slr=False)
    assert isinstance(quantizer, N2uqActivation)
    first = np.float32(quantizer.a[0].item()) / np.float32(2)
    after = np.nextafter(first, np.float32(2))
    assert _codes(quantizer, [first, after]).tolist() == [0, 1]
    assert quantizer.table()[0] == after
    with torch.no_grad():
        value = quantizer(torch.tensor([first, after]))
    assert value[0] == 0.0
    assert value[1] == quantizer.step


def test_lsq_and_minmax_round_half_to_even() -> None:
    """At a tie the even code wins (LSQ: ``round``; torch and numpy both mean half to even)."""
    lsq = LsqActivation(3)
    minmax = MinMaxActivation(3)
    with torch.no_grad():
        lsq.raw_step.fill_(0.5)
        minmax.low.fill_(-1.0)
        minmax.high.fill_(2.5)  # step 0.5
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25])
    assert _codes(lsq, ties).tolist() == [0, 2, 2, 4, 4, 6, 6]
    assert _codes(minmax, ties - 1.0).tolist() == [0, 2, 2, 4, 4, 6, 6]


@pytest.mark.parametrize(("kind", "bits"), [(kind, bits) for kind, slr, bits in CASES if slr])
def test_slr_moves_the_thresholds_as_the_paper_says(kind: str, bits: int) -> None:
    """Section 3.5: ``T'_i = e^(t_i) - off``, and the table holds the first float32 not below it.

    ``t_i`` is taken from the inner quantizer in float64; the slack is that arithmetic's rounding,
    4 units of 2^-53 relative to ``e^t + off``.
    """
    quantizer = _trained(kind, True, bits)
    assert isinstance(quantizer, SlrActivation)
    inner, off = quantizer.inner, float(quantizer.offset)
    if isinstance(inner, N2uqActivation):
        gaps = inner.gaps.detach().double().numpy()
        t = float(inner.start) + np.cumsum(gaps) - gaps / 2
        t = t / float(inner.scale1)
    elif isinstance(inner, LsqActivation):
        t = (np.arange(inner.top) + 0.5) * float(inner.step)
    elif isinstance(inner, BinaryActivation):
        t = np.zeros(1)
    else:
        assert isinstance(inner, MinMaxActivation)
        t = _free_thresholds(inner)
    closed = np.exp(t) - off
    slack = 4 * 2.0**-53 * (np.exp(t) + abs(off)) * np.maximum(1, np.abs(t))
    table = quantizer.table()
    before = np.nextafter(table, np.float32(-np.inf)).astype(np.float64)
    assert np.all(table.astype(np.float64) >= closed - slack)
    assert np.all(before <= closed + slack)


def test_slr_offset_is_eq_10() -> None:
    """``off = min(max|X|, eps) + tau`` with the running estimate of ``max|X|``."""
    quantizer = SlrActivation(LsqActivation(2), epsilon=2.0)
    with torch.no_grad():
        quantizer.tau.fill_(0.25)
        for largest, want in ((1.5, 1.75), (2.0, 2.25), (9.0, 2.25)):
            quantizer.running_max.fill_(largest)
            assert float(quantizer.offset) == want


def test_slr_trains_with_the_batchs_own_maximum_and_keeps_a_running_one() -> None:
    """Training takes Eq. 10's ``max|X|`` from the batch; the estimate is set, then moved by 0.1."""
    quantizer = SlrActivation(LsqActivation(3))
    assert isinstance(quantizer.inner, LsqActivation)
    with torch.no_grad():
        quantizer.inner.raw_step.fill_(0.1)
        quantizer.inner.initialised.fill_(1.0)
    x = torch.linspace(-0.5, 0.3, 50)
    value = quantizer(x)
    assert torch.equal(value, quantizer.inner((x + 0.5).clamp_min(1e-4).log()))
    assert float(quantizer.running_max) == 0.5
    quantizer(torch.tensor([-4.0, 3.0]))
    assert float(quantizer.running_max) == pytest.approx(0.9 * 0.5 + 0.1 * 4.0, rel=1e-6)
    before = quantizer.running_max.clone()
    quantizer.eval()(torch.tensor([100.0]))
    assert torch.equal(quantizer.running_max, before)


def test_slr_refuses_an_epsilon_below_one() -> None:
    """Paper, below Eq. 10: epsilon >= 1."""
    with pytest.raises(ValueError, match="epsilon >= 1"):
        SlrActivation(LsqActivation(2), epsilon=0.99)


def test_lsq_sets_its_step_from_the_first_training_batch_only() -> None:
    """LSQ section 2.1: ``2 <|x|> / sqrt(Q_P)``; never in evaluation, never again."""
    quantizer = LsqActivation(4)
    quantizer.eval()(torch.tensor([100.0]))
    assert float(quantizer.initialised) == 0.0
    quantizer.train()(torch.tensor([-1.0, 2.0, 3.0, 4.0]))
    want = 2 * 2.5 / math.sqrt(15)
    assert float(quantizer.raw_step.detach()) == pytest.approx(want, rel=1e-6)
    quantizer(torch.tensor([100.0]))
    assert float(quantizer.raw_step.detach()) == pytest.approx(want, rel=1e-6)


def test_minmax_follows_the_range_of_its_input() -> None:
    """The first batch sets low and high; the next moves them by a tenth; evaluation by nothing."""
    quantizer = MinMaxActivation(2)
    quantizer(torch.tensor([-1.0, 3.0]))
    assert (float(quantizer.low), float(quantizer.high)) == (-1.0, 3.0)
    quantizer(torch.tensor([-2.0, 13.0]))
    assert float(quantizer.low) == pytest.approx(-1.1, rel=1e-6)
    assert float(quantizer.high) == pytest.approx(4.0, rel=1e-6)
    quantizer.eval()(torch.tensor([-50.0, 50.0]))
    assert float(quantizer.high) == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize("slr", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_a_quantizer_that_hears_nothing_has_no_table(slr: bool, bits: int) -> None:
    """``scale1 = 0``: one code for every float, and no number for infinity: refused."""
    quantizer = _trained("n2uq", slr, bits)
    inner = _inner(quantizer)
    assert isinstance(inner, N2uqActivation)
    with torch.no_grad():
        inner.scale1.zero_()
    with pytest.raises(ValueError, match="non-decreasing"):
        quantizer.table()


def test_codes_no_float_reaches_have_infinite_thresholds() -> None:
    """``ln`` of the largest float32 is 88.7: a step beyond is ``+inf``, one below all ``-inf``."""
    quantizer = SlrActivation(LsqActivation(2))
    assert isinstance(quantizer.inner, LsqActivation)
    with torch.no_grad():
        quantizer.inner.raw_step.fill_(100.0)  # thresholds at 50, 150, 250
    table = quantizer.table()
    assert np.isfinite(table[0])
    assert table[1:].tolist() == [np.inf, np.inf]
    under = build_activation("n2uq", 2, slr=True)
    assert isinstance(under, SlrActivation)
    assert isinstance(under.inner, N2uqActivation)
    with torch.no_grad():
        under.inner.start.fill_(-10.0)  # below ln(1e-4) = -9.2, the smallest logarithm
    table = under.table()
    assert table[0] == -np.inf
    assert np.isfinite(table[2])


@pytest.mark.parametrize("bits", BITS)
def test_codes_that_only_minus_infinity_misses_start_at_the_lowest_float(bits: int) -> None:
    """With a tiny input scale every finite float reaches the top code, minus infinity none."""
    quantizer = build_activation("n2uq", bits, slr=False)
    assert isinstance(quantizer, N2uqActivation)
    with torch.no_grad():
        quantizer.scale1.fill_(1e-45)
        quantizer.start.fill_(-3.0)
    assert quantizer.table().tolist() == [-LARGEST] * quantizer.top


@pytest.mark.parametrize(("kind", "slr", "bits"), CASES)
def test_step_is_what_one_code_is_worth(kind: str, slr: bool, bits: int) -> None:
    """N2UQ ``scale2 * 2/(2^k-1)``, LSQ the learned step, MinMax the range over ``2^k - 1``.

    The sign's two values lie 2 apart.
    """
    quantizer = _trained(kind, slr, bits)
    inner = _inner(quantizer)
    if isinstance(inner, N2uqActivation):
        want = float(inner.scale2) * 2 / (2**bits - 1)
    elif isinstance(inner, BinaryActivation):
        want = 2.0
    elif isinstance(inner, LsqActivation):
        want = float(inner.raw_step)
    else:
        assert isinstance(inner, MinMaxActivation)
        want = (float(inner.high) - float(inner.low)) / (2**bits - 1)
    assert float(quantizer.step) == pytest.approx(want, rel=1e-6)


def test_an_unknown_kind_is_refused() -> None:
    """The message lists the kinds that there are."""
    with pytest.raises(ValueError, match="minmax, lsq, n2uq, binary"):
        build_activation("dorefa", 2, slr=False)
