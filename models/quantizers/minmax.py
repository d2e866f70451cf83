"""MinMax: a uniform grid between the smallest and the largest value seen (paper Eq. 3).

Eq. 3 places the thresholds at ``t_i = (1 + 2(i-1)) / (2^k - 1)`` of an input scaled to ``[0, 2]``:
the midpoints of a uniform grid of ``2^k`` levels. Here the input runs over ``[low, high]``, zero
among it, and the grid is laid so that zero is one of its levels, as every deployed runtime has it::

    step = (high - low) / (2^k - 1)        zero = round(-low / step)
    code = clamp(round(x / step) + zero, 0, 2^k - 1)        value = (code - zero) * step

With zero on the grid, what a convolution pads with is exactly the value 0.
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


class MinMaxActivation(ActivationQuantizer):
    """Uniform activation quantizer over a range: the running one of its input, or a calibrated one.

    ``low <= 0 <= high`` is not asked of the buffers: the range is widened to zero where it is used.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    @property
    def step(self) -> Tensor:
        span = self.high.clamp_min(0.0) - self.low.clamp_max(0.0)
        step: Tensor = (span / self.top).clamp_min(_SMALLEST_STEP)
        return step

    @property
    def zero(self) -> Tensor:
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

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.observe(x)
        step, zero = self.step, self.zero
        return round_ste((x / step).clamp(-zero, self.top - zero)) * step

    def count(self, x: Tensor) -> Tensor:
        step, zero = self.step.double(), self.zero.double()
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
