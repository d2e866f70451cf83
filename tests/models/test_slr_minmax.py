"""MinMax under SLR: the value 0 keeps its own code; the other kinds under SLR are as they were."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from qmdd.models import QuantConv2d
from qmdd.models.quantizers import (
    ActivationQuantizer,
    LsqActivation,
    MinMaxActivation,
    N2uqActivation,
    SlrActivation,
    build_activation,
)

F32 = npt.NDArray[np.float32]

widths = st.sampled_from([1, 2, 3, 4, 8])
inputs = arrays(np.float32, st.integers(1, 60), elements=st.floats(-6, 20, width=32))


def _over(bits: int, low: float, high: float, largest: float, tau: float) -> SlrActivation:
    """MinMax under SLR over ``[low, high]`` of the logarithm, in evaluation."""
    quantizer = build_activation("minmax", bits, slr=True)
    assert isinstance(quantizer, SlrActivation)
    inner = quantizer.inner
    assert isinstance(inner, MinMaxActivation)
    assert inner.free
    with torch.no_grad():
        inner.low.fill_(low)
        inner.high.fill_(high)
        inner.seen.fill_(1.0)
        quantizer.tau.fill_(tau)
        quantizer.running_max.fill_(largest)
        quantizer.seen.fill_(1.0)
    return quantizer.eval().requires_grad_(False)


made = st.builds(
    _over,
    bits=widths,
    low=st.floats(-3, 1.5, width=32),
    high=st.floats(1.75, 4, width=32),
    largest=st.floats(0, 20, width=32),
    tau=st.floats(-1.5, 15, width=32),
)


@given(quantizer=made)
def test_zero_is_the_code_of_zero(quantizer: SlrActivation) -> None:
    """A whole code in ``0 .. 2^k - 1``, the one that evaluation gives 0 and -0.0."""
    zero = float(quantizer.zero)
    assert zero in range(quantizer.top + 1)
    out = quantizer.encode(torch.tensor([0.0, -0.0]))
    assert out.codes.tolist() == [zero, zero]
    assert out.centred().tolist() == [0.0, 0.0]
    assert quantizer(torch.tensor([0.0])).tolist() == [0.0]


@given(quantizer=made, x=inputs)
def test_the_fake_quantised_value_is_code_less_zero_times_step(
    quantizer: SlrActivation, x: F32
) -> None:
    """In evaluation mode on any input, that product rounded once.

    The float32 logarithm and quotient may lie on the other side of a tie than float64's; inputs
    within 1e-5 codes of one are left out.
    """
    tensor = torch.from_numpy(x)
    value, out = quantizer(tensor), quantizer.encode(tensor)
    tie = _near_a_tie(quantizer, tensor)
    assert torch.equal(value[~tie], (out.centred() * out.step)[~tie])
    assert float((value - out.centred() * out.step).abs().max()) <= 1.0001 * float(out.step)


def _near_a_tie(quantizer: SlrActivation, x: Tensor) -> Tensor:
    inner = quantizer.inner
    assert isinstance(inner, MinMaxActivation)
    logarithm = (x.double() + quantizer.offset).clamp_min(1e-4).log()
    steps = (logarithm - inner.low.double()) / inner.step.double()
    off_tie = (steps - steps.floor() - 0.5).abs()
    # Where x cancels off, float32 holds little of x + off.
    cancelled = 2.0**-22 * (x.abs() + quantizer.offset) / (x + quantizer.offset).clamp_min(1e-4)
    return off_tie <= 1e-5 * (1 + steps.abs()) + cancelled / inner.step.double()


@given(bits=widths, x=inputs)
def test_training_sets_the_range_of_the_logarithm_and_keeps_zero_at_zero(bits: int, x: F32) -> None:
    """One training batch: ``low`` and ``high`` are those of the logarithm, with the batch's off.

    Its values are whole steps, and a 0 among the inputs has exactly the value 0.
    """
    quantizer = build_activation("minmax", bits, slr=True)
    assert isinstance(quantizer, SlrActivation)
    inner = quantizer.inner
    assert isinstance(inner, MinMaxActivation)
    tensor = torch.cat([torch.from_numpy(x), torch.zeros(1)])
    value = quantizer(tensor).detach()
    off = min(float(tensor.abs().max()), 1.0)
    logarithm = (tensor + np.float32(off)).clamp_min(1e-4).log()
    assert (inner.low, inner.high) == (logarithm.min(), logarithm.max())
    assert float(value[-1]) == 0.0
    step = quantizer.step
    steps = (value / step).round()
    assert torch.equal(value, steps * step)
    assert int(steps.max() - steps.min()) <= quantizer.top


def test_the_grid_need_not_contain_the_zero_of_the_logarithm() -> None:
    """``ln(x + 7)`` over [ln 6, ln 9]: all levels lie there; anchored at zero, 1 of 4 would."""
    quantizer = _over(2, float(np.log(6)), float(np.log(9)), largest=1.0, tau=6.0)
    table = quantizer.table()
    grid = np.linspace(np.log(6), np.log(9), 4)
    want = np.exp((grid[1:] + grid[:-1]) / 2) - 7
    np.testing.assert_allclose(table, want, rtol=0, atol=1e-5)
    assert float(quantizer.zero) == 1.0  # ln 7 lies 0.154 above ln 6, a step is 0.135
    assert quantizer.codes(torch.tensor([-1.0, 0.0, 1.0, 2.0])).tolist() == [0, 1, 2, 3]


def test_a_free_grid_alone_counts_from_its_low_end() -> None:
    """Without an origin its values are ``code * step``, ``zero`` is 0."""
    quantizer = MinMaxActivation(2, free=True)
    x = torch.tensor([2.0, 2.4, 2.6, 5.0])
    assert quantizer(x).tolist() == [0.0, 0.0, 1.0, 3.0]
    assert float(quantizer.zero) == 0.0
    assert quantizer.eval().codes(x).tolist() == [0.0, 0.0, 1.0, 3.0]


@pytest.mark.parametrize("off", [1.3, 40.0])
def test_a_convolution_pads_with_the_value_zero(off: float) -> None:
    """Evaluation on codes equals the float convolution of the values, padded with 0."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 6, 6, generator=generator)
    logarithm = (x + off).clamp_min(1e-4).log()
    low, high = float(logarithm.min()), float(logarithm.max())
    quantizer = _over(3, low, high, 1.0, off - 1)
    conv = QuantConv2d(3, 4, 3, padding=1, bits=3, kind="minmax").eval()
    codes = quantizer.encode(x)
    assert float(codes.zero) not in (0.0, 7.0)
    with torch.no_grad():
        have = conv(codes)
        frozen = conv.frozen()
        weight = frozen.codes.double() * frozen.scale.double().reshape(-1, 1, 1, 1)
        values = (codes.centred() * codes.step).double()
        want = torch.nn.functional.conv2d(values, weight, padding=1) / (1 + conv.bn.eps) ** 0.5
    torch.testing.assert_close(have.double(), want, rtol=0, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kind", "bits"), [("n2uq", 1), ("n2uq", 2), ("n2uq", 8), ("lsq", 2), ("lsq", 4), ("binary", 1)]
)
def test_other_kinds_are_the_inner_quantizer_of_the_logarithm_to_the_bit(
    kind: str, bits: int, training: bool
) -> None:
    """Values, codes, step and zero (0), before and after a training step; no bit is different."""
    generator = torch.Generator().manual_seed(bits)
    quantizer, inner = (build_activation(kind, bits, slr=slr) for slr in (True, False))
    assert isinstance(quantizer, SlrActivation)
    for part in (quantizer.inner, inner):
        with torch.no_grad():
            if isinstance(part, N2uqActivation):
                part.start.fill_(-0.47)
                part.scale1.fill_(1.31)
            elif isinstance(part, LsqActivation):
                part.raw_step.fill_(0.23)
                part.initialised.fill_(1.0)
    with torch.no_grad():
        quantizer.tau.fill_(0.13)
    x = torch.randn(4000, generator=generator) * 3
    quantizer.train(training)
    inner.train(training)
    largest = x.abs().max() if training else quantizer.running_max.clone()
    off = largest.clamp_max(1.0) + quantizer.tau.detach()
    value = quantizer(x).detach()
    _same(value, inner((x + off).clamp_min(1e-4).log()).detach())
    wide = (x.double() + quantizer.offset.detach()).clamp_min(1e-4).log()
    _same(quantizer.codes(x), inner.count(wide).float())
    _same(quantizer.step.detach(), inner.step.detach())
    _same(quantizer.zero, torch.zeros(()))
    assert int(quantizer.codes(x).unique().numel()) > 1


def _same(have: Tensor, want: Tensor) -> None:
    assert have.dtype == want.dtype
    assert torch.equal(have, want)


def test_only_minmax_is_free_under_slr() -> None:
    """Alone, MinMax keeps zero on its grid."""
    alone = build_activation("minmax", 2, slr=False)
    assert isinstance(alone, MinMaxActivation)
    assert not alone.free
    quantizers: list[ActivationQuantizer] = [
        build_activation(kind, 1, slr=True) for kind in ("n2uq", "lsq", "binary")
    ]
    assert all(float(q.zero) == 0.0 for q in quantizers)
