"""MinMax: a uniform grid between the smallest and the largest value seen (paper Eq. 3).

Eq. 3 places the thresholds at ``t_i = (1 + 2(i-1)) / (2^k - 1)`` of an input scaled to ``[0, 2]``:
the midpoints of a uniform grid of ``2^k`` levels. Here the input is scaled from ``[low, high]``, so
``code = clamp(round((x - low) / step), 0, 2^k - 1)`` with ``step = (high - low) / (2^k - 1)``.
The value handed on is ``code * step``: ``low`` is left out, as in every quantizer of this project
(codes start at zero, so that convolutions pad with code 0); the batch-norm that follows the
convolution absorbs it.
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
    """Uniform activation quantizer over a running range of its input."""

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
        step: Tensor = ((self.high - self.low) / self.top).clamp_min(_SMALLEST_STEP)
        return step

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
        step = self.step
        return round_ste(((x - self.low) / step).clamp(0, self.top)) * step

    def count(self, x: Tensor) -> Tensor:
        step = ((self.high.double() - self.low.double()) / self.top).clamp_min(_SMALLEST_STEP)
        scaled = (x - self.low.double()) / step
        code: Tensor = scaled.clamp(0, self.top).round().nan_to_num(nan=0.0)
        return code


class MinMaxWeight(WeightQuantizer):
    """Symmetric uniform weights: codes ``-(2^(k-1)-1) .. 2^(k-1)-1``, scale from the largest."""

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
