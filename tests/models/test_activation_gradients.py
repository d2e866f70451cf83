"""Gradients of the activation quantizers, in float64, against the published estimators."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from qmdd.models.quantizers import (
    BinaryActivation,
    LsqActivation,
    MinMaxActivation,
    N2uqActivation,
    SlrActivation,
    build_activation,
)

BITS = (1, 2, 3, 4, 8)
#: Every kind at every width that it has.
CASES = [*itertools.product(("minmax", "lsq", "n2uq"), BITS), ("binary", 1)]


def _close(have: Tensor | None, want: Tensor | float, name: str) -> None:
    """Within 1e-9 of the largest entry: float64 sums in another order, nothing else."""
    assert have is not None, name
    expected = torch.as_tensor(want, dtype=torch.float64)
    slack = 1e-9 * float(expected.abs().max().clamp_min(1e-3))
    worst = float((have - expected).abs().max())
    assert worst <= slack, f"{name}: off by {worst}, allowed {slack}"


def _n2uq(bits: int, rng: np.random.Generator) -> N2uqActivation:
    quantizer = N2uqActivation(bits).double()
    gaps = rng.uniform(0.3, 1.7, quantizer.top) * 2 / quantizer.top
    with torch.no_grad():
        quantizer.a.copy_(torch.from_numpy(gaps))
        quantizer.start.fill_(-0.13)
        quantizer.scale1.fill_(1.3)
        quantizer.scale2.fill_(0.7)
    return quantizer


def _published_ltq(x: Tensor, start: Tensor, a: Tensor, scale1: Tensor, scale2: Tensor) -> Tensor:
    """N2UQ's generalised straight-through estimator as its authors differentiate it.

    Forwards the step function; backwards autograd through the piecewise linear one, built by
    successive ``where``: rise ``interval/a_i`` between ``B_i`` and ``B_(i+1)``, 2 beyond the last.
    """
    levels = a.numel()
    interval = 2.0 / levels
    scaled = x * scale1
    gaps = torch.where(a > 1e-3, a, torch.full_like(a, 1e-3))
    stairs = torch.zeros_like(scaled)
    ramp = torch.zeros_like(scaled)
    threshold, knot = start + gaps[0] / 2, start
    for i in range(levels):
        if i:
            threshold = threshold + gaps[i - 1] / 2 + gaps[i] / 2
            knot = knot + gaps[i - 1]
        height = interval * (i + 1)
        stairs = torch.where(scaled > threshold, torch.full_like(scaled, height), stairs)
        line = interval / gaps[i] * (scaled - knot) + height - interval
        ramp = torch.where(scaled > knot, line, ramp)
    knot = knot + gaps[-1]
    ramp = torch.where(scaled > knot, torch.full_like(scaled, 2.0), ramp)
    return (stairs.detach() + ramp - ramp.detach()) * scale2


@pytest.mark.parametrize(
    ("bits", "tight"), [*((bits, False) for bits in BITS), *((bits, True) for bits in BITS[1:])]
)
def test_n2uq_gradients_are_those_of_the_published_code(bits: int, tight: bool) -> None:
    """N2UQ Eq. 9-12 for the input and all four parameters.

    ``tight``: one gap is below the smallest, so that it gets no gradient and the others do (one
    bit has no others).
    """
    rng = np.random.default_rng(bits)
    quantizer = _n2uq(bits, rng)
    if tight:
        with torch.no_grad():
            quantizer.a[1] = 1e-4
    x = torch.from_numpy(rng.normal(0.7, 1.0, (4, 5, 6, 7))).requires_grad_()
    upstream = torch.from_numpy(rng.normal(0, 1, x.shape))
    leaves = [p.detach().clone().requires_grad_() for p in (x, *quantizer.parameters())]
    names = ["x", *(name for name, _ in quantizer.named_parameters())]
    assert names == ["x", "start", "a", "scale1", "scale2"]

    want_value = _published_ltq(*leaves)
    value = quantizer(x)
    _close(value.detach(), want_value.detach(), "value")
    wants = torch.autograd.grad(want_value, leaves, upstream)
    value.backward(upstream)
    for name, have, want in zip(
        names, (x.grad, *(p.grad for p in quantizer.parameters())), wants, strict=True
    ):
        assert bool(want.any())
        _close(have, want, name)
    if tight:
        assert quantizer.a.grad is not None
        assert float(quantizer.a.grad[1]) == 0.0


@pytest.mark.parametrize("bits", BITS)
def test_lsq_gradients_are_its_closed_form(bits: int) -> None:
    """LSQ Eq. 3 and 5: to the step ``round(x/s) - x/s`` inside, 0 or ``Q_P`` outside.

    The step's is scaled by ``1/sqrt(count * Q_P)`` (section 2.2); the input's is 1 inside, 0 out.
    """
    rng = np.random.default_rng(bits)
    quantizer = LsqActivation(bits).double()
    quantizer.initialised.fill_(1.0)
    step = 1.7 / quantizer.top
    with torch.no_grad():
        quantizer.raw_step.fill_(step)
    x = torch.from_numpy(rng.normal(0.8, 1.0, (3, 4, 5))).requires_grad_()
    upstream = torch.from_numpy(rng.normal(0, 1, x.shape))
    quantizer(x).backward(upstream)

    v = x.detach() / step
    inside = (v > 0) & (v < quantizer.top)
    assert bool(inside.any())
    assert bool((v > quantizer.top).any())
    slope = torch.where(inside, v.round() - v, v.clamp(0, quantizer.top))
    scale = 1.0 / math.sqrt(x.numel() * quantizer.top)
    _close(quantizer.raw_step.grad, (slope * upstream).sum() * scale, "step")
    _close(x.grad, upstream * inside, "x")


def test_lsq_step_at_its_smallest_is_not_pushed_through_zero() -> None:
    """Held at 1e-6, the step gives no gradient to its parameter: codes stay defined."""
    quantizer = LsqActivation(2)
    quantizer.initialised.fill_(1.0)
    with torch.no_grad():
        quantizer.raw_step.fill_(-3.0)
    value = quantizer(torch.tensor([0.5]))
    value.sum().backward()
    assert float(value.detach()) == pytest.approx(3e-6)
    assert float(quantizer.raw_step.grad or 0.0) == 0.0


def _minmax_ends(low: float, high: float, top: int) -> tuple[float, float]:
    """First and last value of ``top + 1`` levels as wide as ``[low, high]``, one of them zero."""
    step = (high - low) / top
    below = round(-low / step)
    return -below * step, (top - below) * step


@pytest.mark.parametrize("bits", BITS)
def test_minmax_passes_the_gradient_inside_its_range(bits: int) -> None:
    """Straight through between the ends of its grid, nothing outside.

    The grid has a level at zero, so its ends are ``low`` and ``high`` moved by less than a step.
    """
    quantizer = MinMaxActivation(bits).double().eval()
    quantizer.low.fill_(-0.6)
    quantizer.high.fill_(1.1)
    rng = np.random.default_rng(bits)
    x = torch.from_numpy(rng.normal(0, 1, 500)).requires_grad_()
    upstream = torch.from_numpy(rng.normal(0, 1, 500))
    quantizer(x).backward(upstream)
    first, last = _minmax_ends(-0.6, 1.1, quantizer.top)
    inside = (x.detach() > first) & (x.detach() < last)
    assert 0 < int(inside.sum()) < 500
    _close(x.grad, upstream * inside, "x")


F64 = npt.NDArray[np.float64]


def _bi_real(x: F64) -> F64:
    """What Bi-Real Net differentiates in place of the sign: two parabolas, flat beyond 1."""
    inner = np.where(x < 0, 2 * x + x**2, 2 * x - x**2)
    return np.where(x < -1, -1.0, np.where(x < 1, inner, 1.0))


def _smooth(quantizer: SlrActivation, x: F64, tau: float) -> F64:
    """What SLR's gradient belongs to: the inner quantizer's piecewise linear function.

    ``f(ln(max(x + off, 1e-4)))``, ``off = min(max|X|, eps) + tau`` (Eq. 10-11), in numpy.
    """
    off = min(float(quantizer.running_max), quantizer.epsilon) + tau
    logarithm = np.log(np.maximum(x + off, 1e-4))
    inner = quantizer.inner
    if isinstance(inner, N2uqActivation):
        knots = np.concatenate([[0.0], np.cumsum(inner.gaps.detach().numpy())])
        knots = knots + float(inner.start.detach())
        heights = np.linspace(0, 2, inner.top + 1)
        ramp = np.interp(logarithm * float(inner.scale1.detach()), knots, heights)
        return ramp * float(inner.scale2.detach())
    if isinstance(inner, LsqActivation):
        step = float(inner.raw_step.detach())
        return np.clip(logarithm / step, 0, inner.top) * step
    if isinstance(inner, BinaryActivation):
        return _bi_real(logarithm) + 1
    assert isinstance(inner, MinMaxActivation)
    ends = float(inner.low), float(inner.high)
    return np.clip(logarithm, *ends) - np.clip(np.log(off), *ends)


@pytest.mark.parametrize(("kind", "bits"), CASES)
def test_slr_gradients_are_finite_differences_of_the_smooth_function(kind: str, bits: int) -> None:
    """Chain rule through Eq. 10-11: to the input and to ``tau``.

    Central differences of width 2e-6 in float64 are good to 1e-7 where the function has no kink
    within their reach; inputs near a kink are left out. The maximum is a constant, as in training.
    """
    width = 1e-6
    rng = np.random.default_rng(bits)
    built = build_activation(kind, bits, slr=True)
    assert isinstance(built, SlrActivation)
    quantizer = built.double().eval()
    inner = quantizer.inner
    with torch.no_grad():
        quantizer.tau.fill_(0.21)
        quantizer.running_max.fill_(0.9)
        if isinstance(inner, N2uqActivation):
            quantizer.inner = inner = _n2uq(bits, rng)
        elif isinstance(inner, LsqActivation):
            inner.raw_step.fill_(1.1 / inner.top)
        elif isinstance(inner, MinMaxActivation):
            inner.low.fill_(-0.5)
            inner.high.fill_(0.8)
    points = rng.normal(0.2, 1.2, 4000)
    slopes = [
        (_smooth(quantizer, points + s, 0.21) - _smooth(quantizer, points, 0.21)) / s
        for s in (1e-4, -1e-4, 1e-5, -1e-5)
    ]
    kinked = np.ptp(slopes, axis=0) > 2e-3  # curvature over 1e-4 stays well below this
    kinked |= points + 1.11 < 0.3  # steep logarithm: differences are not accurate enough
    dead = points + 1.11 < 0  # held at the smallest argument: no gradient at all
    points = points[~kinked | dead]
    assert points.size > 2000

    x = torch.from_numpy(points).requires_grad_()
    upstream = rng.normal(0, 1, points.size)
    quantizer(x).backward(torch.from_numpy(upstream))
    ahead = _smooth(quantizer, points + width, 0.21)
    behind = _smooth(quantizer, points - width, 0.21)
    want = upstream * (ahead - behind) / (2 * width)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=0, atol=1e-7 * np.abs(want).max())
    ahead = _smooth(quantizer, points, 0.21 + width)
    behind = _smooth(quantizer, points, 0.21 - width)
    want_tau = float((upstream * (ahead - behind) / (2 * width)).sum())
    assert abs(want_tau) > 0.1
    assert quantizer.tau.grad is not None
    assert float(quantizer.tau.grad) == pytest.approx(want_tau, rel=1e-6)
