"""N2UQ: learned input thresholds, uniform outputs (Liu et al., CVPR 2022).

Activations. With ``n = 2^k - 1``, positive gaps ``a_0 .. a_(n-1)`` and ``v = scale1 * x``::

    T_1     = start + a_0 / 2                      thresholds (N2UQ Eq. 5-6)
    T_(i+1) = T_i + a_(i-1)/2 + a_i/2
    code    = sum_i [v > T_i]                      strict, as published
    value   = code * (2 / n) * scale2

Training may turn ``scale1`` negative; the published quantizer then falls where its input rises. The
values stay the published ones, but the codes of evaluation are counted from the other end, so that
they rise with the input as every quantizer's do: ``code' = n - code``, which stands for
``(code' - n) * (-step)``; its zero is the code ``n``.

The gradient is the paper's generalised straight-through estimator (N2UQ Eq. 9-12): backwards, the
steps are replaced by the piecewise linear function through ``(B_i, i * 2/n)`` with
``B_i = start + a_0 + ... + a_(i-1)``, flat outside ``[B_0, B_n]``.

Weights. ``sf = mean|w| * (2^k - 1) / 2^(k-1)`` per output channel, ``v = clamp(w / sf, +-clip/2)``,
``index = round((v + clip/2) * n / clip)``: values ``sf * (index * clip/n - clip/2)``, which is the
odd integer ``2*index - n`` times ``sf * clip / (2n)``. The gradient is that of ``sf * v``, ``sf``
held constant, so that ``clip`` learns too (the published code lets it pass unclipped there).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .base import ActivationQuantizer, FrozenWeight, WeightQuantizer, per_channel

#: Range of the scaled input at the start, and of the output (before ``scale2``).
RANGE = 2.0
#: A gap is never smaller than this.
SMALLEST_GAP = 1e-3
#: The clip of weights is never smaller than this.
SMALLEST_CLIP = 1e-3
_SMALLEST_SCALE = 1e-8
#: Up to so many thresholds, a comparison for each is faster than a search (2 and 3 bits).
_FEW = 7


class _GeneralisedSte(torch.autograd.Function):
    """Codes forwards, the piecewise linear function of N2UQ backwards (in units of codes)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, start: Tensor, gaps: Tensor) -> Tensor:
        ctx.save_for_backward(v, start, gaps)
        return _count(v, _thresholds(start, gaps))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v, start, gaps = ctx.saved_tensors
        knots = torch.cat([start.reshape(1), start + gaps.cumsum(0)])
        sums = _by_pass if gaps.numel() <= _FEW else _by_segment
        slope, inside, inside_v = sums(v, grad, knots, gaps)
        # d/da_i inside segment i: -(v - B_i)/a_i^2; in every later segment j: -1/a_j.
        own = -(inside_v - knots[:-1] * inside) / gaps.square()
        later = -(inside / gaps)
        tail = later.flip(0).cumsum(0).flip(0)
        return grad * slope, later.sum(), own + tail - later


def _by_pass(v: Tensor, grad: Tensor, knots: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over the input for each knot: the slope at ``v``, and each segment's sums.

    Returns:
        ``1 / a_i`` where ``v`` lies in segment i and 0 outside, as ``v``; the sums of ``grad`` and
        of ``grad * v`` over the elements in each segment, ``[n]``.
    """
    slopes = torch.cat([1.0 / gaps, gaps.new_zeros(1)])
    jumps = slopes - torch.cat([gaps.new_zeros(1), slopes[:-1]])
    weighted = grad * v
    slope = torch.zeros_like(v)
    mass, moment = [], []  # sums of grad and grad*v right of each knot
    for knot, jump in zip(knots, jumps, strict=True):
        right = (v > knot).to(v.dtype)
        mass.append((right * grad).sum())
        moment.append((right * weighted).sum())
        slope.add_(right.mul_(jump))
    inside = torch.stack(mass[:-1]) - torch.stack(mass[1:])
    inside_v = torch.stack(moment[:-1]) - torch.stack(moment[1:])
    return slope, inside, inside_v


def _by_segment(
    v: Tensor, grad: Tensor, knots: Tensor, gaps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by looking up each element's segment: less work where knots are many."""
    # Knots below v: 0 is left of the first segment, i + 1 is segment i, n + 1 right of the last.
    index = torch.bucketize(v.contiguous(), knots, out_int32=True).flatten()
    outside = gaps.new_zeros(1)
    slope = torch.cat([outside, 1.0 / gaps, outside])[index].view_as(v)
    wide = grad.flatten().double()
    count = knots.numel() + 1
    inside = torch.bincount(index, wide, count)[1:-1]
    inside_v = torch.bincount(index, wide * v.flatten(), count)[1:-1]
    return slope, inside.to(gaps.dtype), inside_v.to(gaps.dtype)


def _thresholds(start: Tensor, gaps: Tensor) -> Tensor:
    """T_1 .. T_n from ``start`` (scalar) and ``gaps`` ``[n]``: midpoints of the knots."""
    return start + gaps.cumsum(0) - gaps / 2


def _count(v: Tensor, thresholds: Tensor) -> Tensor:
    if thresholds.numel() > _FEW:
        # right=False counts the thresholds below v; NaN passes none, as in the comparison.
        passed = torch.bucketize(v.contiguous(), thresholds, out_int32=True).to(v.dtype)
        return passed.masked_fill_(v.isnan(), 0.0)
    code = torch.zeros_like(v)
    for threshold in thresholds:
        code += v > threshold
    return code


class N2uqActivation(ActivationQuantizer):
    """N2UQ's learnable thresholds; parameters named as in the published code."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.start = nn.Parameter(torch.zeros(()))
        self.a = nn.Parameter(torch.full((self.top,), RANGE / self.top))
        self.scale1 = nn.Parameter(torch.ones(()))
        self.scale2 = nn.Parameter(torch.ones(()))

    @property
    def _unit(self) -> Tensor:
        """What one step of the published quantizer is worth."""
        unit: Tensor = self.scale2 * (RANGE / self.top)
        return unit

    @property
    def step(self) -> Tensor:
        return torch.where(self.scale1 < 0, -self._unit, self._unit)

    @property
    def zero(self) -> Tensor:
        return (self.scale1 < 0) * torch.full_like(self.scale2, self.top)

    @property
    def gaps(self) -> Tensor:
        """Gaps held above :data:`SMALLEST_GAP`, float32 ``[top]``."""
        return self.a.clamp_min(SMALLEST_GAP)

    def forward(self, x: Tensor) -> Tensor:
        v = x * self.scale1
        code: Tensor = _GeneralisedSte.apply(v, self.start, self.gaps)  # type: ignore[no-untyped-call]
        return code * self._unit

    def count(self, x: Tensor) -> Tensor:
        v = x * self.scale1.double()
        thresholds = _thresholds(self.start.double(), self.gaps.double())
        # bucketize(right=False) counts thresholds < v, in log2(n) steps; NaN would count all.
        code = torch.bucketize(v.contiguous(), thresholds).to(torch.float64)
        code = torch.where(self.scale1 < 0, self.top - code, code)
        return torch.where(v.isnan(), 0.0, code)


class _ClippedLevels(torch.autograd.Function):
    """``factor * level(clamp(w / factor, +-clip/2))``; backwards ``factor`` times the clamp alone.

    Written by hand because weights are the largest tensors of a training step: autograd's own
    minimum/maximum/round chain took half of it.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: Tensor, clip: Tensor, top: int) -> Tensor:
        half = max(float(clip), SMALLEST_CLIP) / 2
        scaled = weight / factor
        ctx.save_for_backward(scaled, factor)
        ctx.half = half
        steps = top / (2 * half)
        level = scaled.clamp(-half, half).add_(half).mul_(steps).round_()
        return level.div_(steps).sub_(half).mul_(factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None]:
        scaled, factor = ctx.saved_tensors
        inside = scaled.abs() <= ctx.half
        outside = (grad * factor).mul_(scaled.sign()).masked_fill_(inside, 0.0)
        return grad * inside, None, outside.sum() / 2, None


class N2uqWeight(WeightQuantizer):
    """Weights at the odd integers ``+-1, +-3 .. +-(2^k - 1)``, scale from the mean magnitude."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.top = 2**bits - 1
        self.clip_val = nn.Parameter(torch.tensor(2.0))

    def codebook(self) -> np.ndarray:
        return np.arange(-self.top, self.top + 1, 2, dtype=np.int16)

    def _factor(self, mean: Tensor) -> Tensor:
        factor: Tensor = (mean * (self.top / 2 ** (self.bits - 1))).clamp_min(_SMALLEST_SCALE)
        return factor

    def forward(self, weight: Tensor) -> Tensor:
        factor = per_channel(self._factor(weight.detach().flatten(1).abs().mean(dim=1)), weight)
        levels = _ClippedLevels.apply
        out: Tensor = levels(weight, factor, self.clip_val, self.top)  # type: ignore[no-untyped-call]
        return out

    @torch.no_grad()
    def freeze(self, weight: Tensor) -> FrozenWeight:
        mean = weight.detach().double().flatten(1).abs().mean(dim=1)
        factor = self._factor(mean).float()
        clip = self.clip_val.clamp_min(SMALLEST_CLIP)
        half = clip / 2
        clipped = torch.minimum(torch.maximum(weight / per_channel(factor, weight), -half), half)
        index = torch.round((clipped + half) * (self.top / clip))
        scale = factor.double() * clip.double() / (2 * self.top)
        return FrozenWeight((2 * index - self.top).to(torch.int16), scale.float())


__all__ = ["N2uqActivation", "N2uqWeight"]
