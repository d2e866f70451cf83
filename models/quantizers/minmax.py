"""MinMax: a uniform grid between the smallest and the largest value seen (paper Eq. 3).

Eq. 3 places the thresholds at ``t_i = (1 + 2(i-1)) / (2^k - 1)`` of an input scaled to ``[0, 2]``:
the midpoints of a uniform grid of ``2^k`` levels. Here the input runs over ``[low, high]``, zero
among it, and the grid is laid so that zero is one of its levels, as every deployed runtime has it::

    step = (high - low) / (2^k - 1)        zero = round(-low / step)
    code = clamp(round(x / step) + zero, 0, 2^k - 1)        value = (code - zero) * step

With zero on the grid, what a convolution pads with is exactly the value 0.

Under SLR the input is a logarithm, whose own zero means nothing (it is ``x = 1 - off``). There the
grid is free: it need not contain zero and ``low`` itself is its first level::

    code = clamp(round((u - low) / step), 0, 2^k - 1)

:class:`.slr.SlrActivation` knows which ``u`` the value 0 has, and takes its code for ``zero``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .base import ActivationQuantizer, FrozenWeight, WeightQuantizer, per_channel
from .ste import round_ste

#: Share of the newest batch in the running range.
MOMENTUM = 0.1
_SMALLEST_STEP = 1e-8
#: On a free grid, relative to its ends: a step below their own rounding would count that.
_SMALLEST_SHARE = 2.0**-20


class MinMaxActivation(ActivationQuantizer):
    """Uniform activation quantizer over a range: the running one of its input, or a calibrated one.

    ``low <= 0 <= high`` is not asked of the buffers: the range is widened to zero where it is used,
    unless the grid is free.

    Args:
        bits: width of the codes.
        free: the grid starts at ``low``, and zero need not be among its levels. A free grid's
            values are counted from ``low``: ``code * step``.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, bits: int, free: bool = False) -> None:
        super().__init__(bits)
        self.free = free
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    @property
    def step(self) -> Tensor:
        if self.free:
            smallest = torch.maximum(self.low.abs(), self.high.abs()) * _SMALLEST_SHARE
            free = torch.maximum((self.high - self.low) / self.top, smallest)
            return free.clamp_min(_SMALLEST_STEP)
        span = self.high.clamp_min(0.0) - self.low.clamp_max(0.0)
        step: Tensor = (span / self.top).clamp_min(_SMALLEST_STEP)
        return step

    @property
    def zero(self) -> Tensor:
        if self.free:
            return torch.zeros_like(self.step)
        zero: Tensor = (-self.low.clamp_max(0.0) / self.step).round().clamp(0, self.top)
        return zero

    def observe(self, x: Tensor) -> None:
        """Move the running range towards that of ``x``; the first batch sets it."""
        with torch.no_grad():
            low, high = torch.aminmax(x.detach())
            share = torch.where(self.seen > 0, MOMENTUM, 1.0)
            self.low.lerp_(low.to(self.low.dtype), share)
            self.high.lerp_(high.to(self.high.dtype), share)
            self.seen.fill_(1.0)

    def forward(self, x: Tensor, origin: Tensor | None = None) -> Tensor:
        """As in the base class; a free grid may give ``origin`` (float64 scalar) the value 0."""
        if self.training:
            self.observe(x)
        if self.free:
            return (self._free_code(x) - self._free_zero(origin)) * self.step
        step, zero = self.step, self.zero
        return round_ste((x / step).clamp(-zero, self.top - zero)) * step

    def _free_code(self, x: Tensor) -> Tensor:
        """Codes of ``x``; the gradient passes within the range."""
        return round_ste(((x - self.low) / self.step).clamp(0, self.top))

    def _free_zero(self, origin: Tensor | None) -> Tensor:
        """The very code that :meth:`count` gives float64 ``origin``, with a code's gradient."""
        if origin is None:
            return self.zero
        steps = (origin - self.low.double()) / self.step.double()
        return round_ste(steps.clamp(0, self.top)).to(self.low.dtype)

    def count(self, x: Tensor) -> Tensor:
        step = self.step.double()
        if self.free:
            steps = (x - self.low.double()) / step
            free: Tensor = steps.round().clamp(0, self.top).nan_to_num(nan=0.0)
            return free
        zero = self.zero.double()
        code: Tensor = ((x / step).round() + zero).clamp(0, self.top).nan_to_num(nan=0.0)
        return code


class MinMaxWeight(WeightQuantizer):
    """Symmetric uniform weights: codes ``-(2^(k-1)-1) .. 2^(k-1)-1``, scale from the largest."""

    def __init__(self, bits: int) -> None:
        if bits == 1:
            raise ValueError("minmax has no level beside zero for weights of one bit")
        super().__init__(bits)

    def codebook(self) -> np.ndarray:
        return np.arange(-self.limit, self.limit + 1, dtype=np.int16)

    @property
    def limit(self) -> int:
        """The largest code."""
        largest: int = 2 ** (self.bits - 1) - 1
        return largest

    def _scale(self, weight: Tensor) -> Tensor:
        largest = weight.detach().flatten(1).abs().amax(dim=1)
        return (largest / self.limit).clamp_min(_SMALLEST_STEP)

    def forward(self, weight: Tensor) -> Tensor:
        scale = per_channel(self._scale(weight), weight)
        return round_ste((weight / scale).clamp(-self.limit, self.limit)) * scale

    @torch.no_grad()
    def freeze(self, weight: Tensor) -> FrozenWeight:
        scale = self._scale(weight)
        codes = (weight / per_channel(scale, weight)).clamp(-self.limit, self.limit).round()
        return FrozenWeight(codes.to(torch.int16), scale)


__all__ = ["MinMaxActivation", "MinMaxWeight"]
