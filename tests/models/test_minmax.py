"""MinMax activations: zero lies on the grid, whatever the range."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qmdd.models.quantizers import MinMaxActivation

F32 = npt.NDArray[np.float32]

widths = st.sampled_from([1, 2, 3, 4, 8])
#: Ends of a range, of either sign, tiny, huge or zero.
ends = st.floats(-(2.0**100), 2.0**100, width=32)
batches = arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.one_of(st.floats(-4, 4, width=32), st.floats(-(2.0**90), 2.0**90, width=32)),
)


def _over(bits: int, low: float, high: float) -> MinMaxActivation:
    """A quantizer over ``[low, high]``, in evaluation."""
    quantizer = MinMaxActivation(bits)
    quantizer.low.fill_(low)
    quantizer.high.fill_(high)
    quantizer.seen.fill_(1.0)
    return quantizer.eval()


@given(bits=widths, first=ends, second=ends)
def test_zero_is_a_level_of_every_range(bits: int, first: float, second: float) -> None:
    """A whole code in ``0 .. 2^k - 1``; 0 and -0.0 get it, and their value is 0 itself."""
    quantizer = _over(bits, min(first, second), max(first, second))
    zero = float(quantizer.zero)
    assert zero in range(2**bits)
    assert float(quantizer.step) > 0
    out = quantizer.encode(torch.tensor([0.0, -0.0]))
    assert out.codes.tolist() == [zero, zero]
    assert (out.centred() * out.step).tolist() == [0.0, 0.0]
    assert quantizer(torch.tensor([0.0, -0.0])).tolist() == [0.0, 0.0]


@given(bits=widths, first=ends, second=ends)
def test_the_grid_covers_the_range(bits: int, first: float, second: float) -> None:
    """Its ends lie within half a step of ``min(low, 0)`` and ``max(high, 0)``.

    Half a step and the rounding of step and quotient to float32: two units of 2^-23 of the span.
    """
    low, high = min(first, second, 0.0), max(first, second, 0.0)
    top = 2**bits - 1
    assume((high - low) / top > 1e-8)  # a smaller step is held there
    quantizer = _over(bits, min(first, second), max(first, second))
    step, zero = float(quantizer.step), float(quantizer.zero)
    slack = step / 2 + 2 * 2.0**-23 * (high - low)
    assert abs(-zero * step - low) <= slack
    assert abs((top - zero) * step - high) <= slack


@given(bits=widths, x=batches)
def test_training_and_evaluation_give_the_same_value(bits: int, x: F32) -> None:
    """Training's value is evaluation's ``(code - zero) * step``, that product rounded once.

    Training divides in float32, evaluation in float64, so a quotient within two units of 2^-23 of
    a tie may round the other way, and is left out. The batch sets the range, so its values lie in
    it.
    """
    quantizer = MinMaxActivation(bits)
    tensor = torch.from_numpy(x)
    value = quantizer.train()(tensor)
    out = quantizer.eval().encode(tensor)
    assert torch.equal(quantizer(tensor), value)
    quotient = tensor.double() / out.step.double()
    tie = (quotient - quotient.floor() - 0.5).abs() <= 2 * 2.0**-23 * (1 + quotient.abs())
    want = out.centred() * out.step
    assert torch.equal(value[~tie], want[~tie])
    # At a tie, too, the two are neighbours; and no value is further from its input than the grid.
    assert float((value - want).abs().max()) <= 1.0001 * float(out.step)
    assert float((want.double() - tensor.double()).abs().max()) <= 1.0001 * float(out.step)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    ("low", "high", "bottom", "top"),
    [
        (2.0, 5.0, 0.0, 5.0),  # all positive: from zero on
        (-5.0, -2.0, -5.0, 0.0),  # all negative: up to zero
        (3.0, 3.0, 0.0, 3.0),  # constant
        (-3.0, -3.0, -3.0, 0.0),
    ],
)
def test_ranges_without_zero_are_widened_to_it(
    bits: int, low: float, high: float, bottom: float, top: float
) -> None:
    """Both ends of the widened range are levels, and 0 is one of the two."""
    quantizer = _over(bits, low, high)
    assert float(quantizer.step) == np.float32(top - bottom) / np.float32(2**bits - 1)
    assert float(quantizer.zero) == (2**bits - 1 if bottom < 0 else 0)
    out = quantizer.encode(torch.tensor([bottom, top, -100.0, 100.0]))
    last = float(2**bits - 1)
    assert out.codes.tolist() == [0.0, last, 0.0, last]
    values = (out.centred() * out.step)[:2].tolist()
    assert values == pytest.approx([bottom, top], rel=1e-6)


def test_a_range_of_nothing() -> None:
    """All inputs 0: a tiny step, zero at code 0, finite values in training and evaluation."""
    quantizer = MinMaxActivation(2)
    value = quantizer(torch.zeros(5))
    assert value.tolist() == [0.0] * 5
    assert float(quantizer.step) == pytest.approx(1e-8)
    assert float(quantizer.zero) == 0.0
    out = quantizer.eval().encode(torch.tensor([0.0, 1.0, -1.0]))
    assert out.codes.tolist() == [0.0, 3.0, 0.0]


@pytest.mark.parametrize(("low", "zero"), [(-0.2, 0.0), (-0.6, 1.0), (-1.5, 2.0), (-2.4, 2.0)])
def test_zero_is_rounded_to_a_level(low: float, zero: float) -> None:
    """``round(-low / step)`` at 2 bits, ``high = 3 + low`` (step 1): -1.5 is a tie, 2 is even."""
    quantizer = _over(2, low, 3.0 + low)
    assert float(quantizer.step) == 1.0
    assert float(quantizer.zero) == zero
    x = torch.arange(-3, 4).float()
    codes = quantizer.codes(x).tolist()
    assert codes == [min(max(v + zero, 0.0), 3.0) for v in x.tolist()]
