"""N2UQ's and LSQ's forward formulas as published, in float64 numpy, against the quantizers.

The parameters are drawn at random too (test_activation_quantizers.py has the ones of a training).
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qmdd.models.quantizers import (
    FrozenWeight,
    LsqActivation,
    LsqWeight,
    N2uqActivation,
    N2uqWeight,
)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

#: N2UQ's released code holds its gaps above this, in float32 as the gaps themselves.
SMALLEST_GAP = float(np.float32(1e-3))

widths = st.sampled_from([1, 2, 3, 4, 8])
scales = st.floats(2.0**-6, 2.0**6, width=32)
inputs = arrays(np.float32, 40, elements=st.floats(-64, 64, width=32))


@st.composite
def _n2uq(draw: st.DrawFn) -> N2uqActivation:
    quantizer = N2uqActivation(draw(widths))
    gaps = draw(arrays(np.float32, quantizer.top, elements=st.floats(-0.5, 3, width=32)))
    with torch.no_grad():
        quantizer.a.copy_(torch.from_numpy(gaps))
        quantizer.start.fill_(draw(st.floats(-3, 3, width=32)))
        quantizer.scale1.fill_(draw(scales))
        quantizer.scale2.fill_(draw(scales))
    return quantizer.eval().requires_grad_(False)


def _published_thresholds(start: float, gaps: F64) -> F64:
    """N2UQ Eq. 5-6, ``T_1 = start + a_1/2``, from there half a gap and half a gap on."""
    found = [start + gaps[0] / 2]
    for before, here in itertools.pairwise(gaps):
        found.append(found[-1] + before / 2 + here / 2)
    return np.array(found)


def _published_n2uq(quantizer: N2uqActivation) -> tuple[F64, float]:
    """Thresholds and the input's scale."""
    gaps = np.maximum(quantizer.a.double().numpy(), SMALLEST_GAP)
    return _published_thresholds(float(quantizer.start), gaps), float(quantizer.scale1)


@given(quantizer=_n2uq(), x=inputs)
def test_n2uq_counts_the_thresholds_below_its_input(quantizer: N2uqActivation, x: F32) -> None:
    """Liu 2022: ``code = #{i: scale1 * x > T_i}``, value ``code * scale2 * 2/n``.

    Thresholds are summed in another order here, so inputs within that rounding of one are left out
    (float64: 1e-12 of the largest); what happens *at* a tie is the next test's.
    Training computes in float32, where the same rounding is ``n + 4`` units of 2^-23.
    """
    thresholds, scale = _published_n2uq(quantizer)
    # Inputs at random, and one to either side of each threshold.
    beside = np.outer(thresholds / scale, [1 - 2.0**-20, 1 + 2.0**-20]).reshape(-1)
    x = np.concatenate([x, beside]).astype(np.float32)
    v = x.astype(np.float64) * scale
    largest = np.abs(thresholds).max() + np.abs(v)
    distance = np.abs(v[:, None] - thresholds).min(axis=1)
    want = (v[:, None] > thresholds).sum(axis=1)

    clear = distance > 1e-12 * largest
    tensor = torch.from_numpy(x)
    codes = quantizer.codes(tensor).numpy()
    np.testing.assert_array_equal(codes[clear], want[clear])

    clear = distance > (quantizer.top + 4) * 2.0**-23 * largest
    with torch.no_grad():
        value = quantizer(tensor).double().numpy()
    published = want * float(quantizer.scale2) * 2 / quantizer.top
    np.testing.assert_allclose(value[clear], published[clear], rtol=1e-6, atol=0)


@given(
    bits=widths,
    start=st.integers(-256, 256),
    data=st.data(),
    power=st.integers(-3, 3),
)
def test_n2uq_is_strict_at_a_tie(bits: int, start: int, data: st.DataObject, power: int) -> None:
    """An input that *is* threshold ``T_i`` does not pass it: ``>``, not ``>=``, as published.

    Start and gaps are whole multiples of 1/32 and the scale a power of two, so that sum, half and
    product are exact in float32 and float64, and the tie is one. The next float passes.
    """
    top = 2**bits - 1
    gaps = data.draw(arrays(np.int64, top, elements=st.integers(1, 64))) / 32
    quantizer = N2uqActivation(bits).eval()
    with torch.no_grad():
        quantizer.a.copy_(torch.from_numpy(gaps))
        quantizer.start.fill_(start / 32)
        quantizer.scale1.fill_(2.0**power)
    thresholds = _published_thresholds(start / 32, gaps)
    ties = (thresholds / 2.0**power).astype(np.float32)
    np.testing.assert_array_equal(ties.astype(np.float64) * 2.0**power, thresholds)
    after = np.nextafter(ties, np.float32(np.inf))
    order = np.arange(top)
    for x, want in ((ties, order), (after, order + 1)):
        tensor = torch.from_numpy(x)
        np.testing.assert_array_equal(quantizer.codes(tensor).numpy(), want)
        with torch.no_grad():
            value = quantizer(tensor) / quantizer.step
        np.testing.assert_array_equal(value.round().numpy(), want)
    np.testing.assert_array_equal(quantizer.table(), after)


def _lsq(bits: int, step: float) -> LsqActivation:
    quantizer = LsqActivation(bits)
    with torch.no_grad():
        quantizer.raw_step.fill_(step)
        quantizer.initialised.fill_(1.0)
    return quantizer.eval()


@given(bits=widths, step=scales, x=inputs)
def test_lsq_rounds_the_clipped_quotient(bits: int, step: float, x: F32) -> None:
    """Esser 2020 Eq. 1-2: ``code = round(clip(x/s, 0, Q_P))``, value ``code * s``.

    One float64 division on both sides, so codes are equal everywhere, at ties too (half to even).
    Training divides in float32: inputs within two units of 2^-23 of a tie are left out there.
    """
    quantizer = _lsq(bits, step)
    quotient = x.astype(np.float64) / float(np.float32(step))
    want = np.rint(np.clip(quotient, 0, quantizer.top))
    tensor = torch.from_numpy(x)
    np.testing.assert_array_equal(quantizer.codes(tensor).numpy(), want)
    tie = np.abs(quotient - np.floor(quotient) - 0.5) <= 2 * 2.0**-23 * (1 + np.abs(quotient))
    with torch.no_grad():
        value = quantizer(tensor).double().numpy()
    np.testing.assert_allclose(value[~tie], (want * step)[~tie], rtol=1e-6, atol=0)


@given(bits=widths, power=st.integers(-6, 6), data=st.data())
def test_lsq_takes_the_even_code_at_a_tie(bits: int, power: int, data: st.DataObject) -> None:
    """``x = (code + 1/2) s`` exactly, ``s`` a power of two: to the even neighbour."""
    step = 2.0**power
    below = data.draw(st.integers(0, 2**bits - 2))
    x = torch.tensor([(below + 0.5) * step])
    quantizer = _lsq(bits, step)
    want = below + below % 2
    assert quantizer.codes(x).tolist() == [want]
    with torch.no_grad():
        assert quantizer(x).tolist() == [want * step]


weights = arrays(np.float32, (3, 12), elements=st.floats(-4, 4, width=32))


def _levels(frozen: FrozenWeight) -> I64:
    return frozen.codes.reshape(3, 12).numpy().astype(np.int64)


@given(bits=st.sampled_from([2, 3, 4, 8]), step=scales, w=weights)
def test_lsq_weights_round_the_clipped_quotient(bits: int, step: float, w: F32) -> None:
    """Esser 2020 Eq. 1-2 with ``Q_N = 2^(k-1)``, ``Q_P = 2^(k-1) - 1``.

    Weights are divided in float32: those within two units of 2^-23 of a tie are left out.
    """
    tensor = torch.from_numpy(w).reshape(3, 12, 1, 1)
    quantizer = LsqWeight(bits, tensor)
    with torch.no_grad():
        quantizer.raw_step.fill_(step)
    quotient = w.astype(np.float64) / float(np.float32(step))
    want = np.rint(np.clip(quotient, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    clear = np.abs(quotient - np.floor(quotient) - 0.5) > 2.0**-22 * (1 + np.abs(quotient))
    frozen = quantizer.freeze(tensor)
    np.testing.assert_array_equal(_levels(frozen)[clear], want[clear])
    np.testing.assert_array_equal(frozen.scale.numpy(), np.float32(step))


@given(bits=widths, clip=st.floats(0.25, 4, width=32), w=weights)
def test_n2uq_weights_are_the_nearest_odd_levels(bits: int, clip: float, w: F32) -> None:
    """Liu 2022: ``round((clip(w/sf) + c/2) n/c)`` of ``n + 1`` levels, ``sf = mean|w| n/2^(k-1)``.

    As odd integers ``2 index - n``. Computed in float32: indices within 8 units of 2^-23 of a tie
    (relative to ``n`` levels) are left out. A channel of zeros has no scale of its own.
    """
    w = w + np.where(np.abs(w).max(axis=1, keepdims=True) < 1e-3, np.float32(1), np.float32(0))
    tensor = torch.from_numpy(w).reshape(3, 12, 1, 1)
    quantizer = N2uqWeight(bits)
    with torch.no_grad():
        quantizer.clip_val.fill_(clip)
    n = 2**bits - 1
    factor = np.abs(w.astype(np.float64)).mean(axis=1, keepdims=True) * n / 2 ** (bits - 1)
    half = float(np.float32(clip)) / 2
    level = (np.clip(w / factor, -half, half) + half) * n / (2 * half)
    want = 2 * np.rint(level) - n
    clear = np.abs(level - np.floor(level) - 0.5) > 8 * 2.0**-23 * n
    frozen = quantizer.freeze(tensor)
    np.testing.assert_array_equal(_levels(frozen)[clear], want[clear])
    scale = (factor * 2 * half / (2 * n)).reshape(-1)
    np.testing.assert_allclose(frozen.scale.numpy(), scale, rtol=3e-7, atol=0)
