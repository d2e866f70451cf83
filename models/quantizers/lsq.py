"""LSQ: a uniform grid whose step is learned (Esser et al., ICLR 2020).

``v = clamp(x / s, -Q_N, Q_P)``, ``code = round(v)``, value ``code * s`` (LSQ Eq. 1-2). The gradient
of the value to the step is ``code - x/s`` inside the range and the clamped code outside it (LSQ
Eq. 3), scaled by ``g = 1/sqrt(count * Q_P)``. Activations: ``Q_N = 0``, ``Q_P = 2^k - 1``; weights:
``Q_N = 2^(k-1)``, ``Q_P = 2^(k-1) - 1``. The published weight step is one per layer; here it is one
per output channel, which every deployment target takes and which contains the published form.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from .base import ActivationQuantizer, FrozenWeight, WeightQuantizer, per_channel
from .ste import round_ste, scale_gradient

#: A step is never smaller than this (units of the input).
SMALLEST_STEP = 1e-6


class LsqActivation(ActivationQuantizer):
    """Unsigned LSQ; the step is set from the first training batch (``2 E|x| / sqrt(Q_P)``)."""

    initialised: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.raw_step = nn.Parameter(torch.tensor(2.0 / self.top))
        self.register_buffer("initialised", torch.zeros(()))

    @property
    def step(self) -> Tensor:
        return self.raw_step.clamp_min(SMALLEST_STEP)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not bool(self.initialised):
            with torch.no_grad():
                self.raw_step.copy_(2 * x.detach().abs().mean() / math.sqrt(self.top))
                self.initialised.fill_(1.0)
        step = scale_gradient(self.step, 1.0 / math.sqrt(x.numel() * self.top))
        return round_ste((x / step).clamp(0, self.top)) * step

    def count(self, x: Tensor) -> Tensor:
        return (x / self.step.double()).clamp(0, self.top).round().nan_to_num(nan=0.0)


class LsqWeight(WeightQuantizer):
    """Signed LSQ, one learned step per output channel."""

    def __init__(self, bits: int, weight: Tensor) -> None:
        if bits == 1:
            raise ValueError("lsq has no level above zero for weights of one bit")
        super().__init__(bits)
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.raw_step = nn.Parameter(self._first_step(weight))

    def _first_step(self, weight: Tensor) -> Tensor:
        """LSQ's initial step, ``2 E|w| / sqrt(Q_P)``, per output channel."""
        return 2 * weight.detach().flatten(1).abs().mean(dim=1) / math.sqrt(self.high)

    @torch.no_grad()
    def adapt(self, weight: Tensor) -> None:
        self.raw_step.copy_(self._first_step(weight))

    def codebook(self) -> np.ndarray:
        return np.arange(self.low, self.high + 1, dtype=np.int16)

    def forward(self, weight: Tensor) -> Tensor:
        per_step = weight.numel() // weight.shape[0]
        step = self.raw_step.clamp_min(SMALLEST_STEP)
        step = per_channel(scale_gradient(step, 1.0 / math.sqrt(per_step * self.high)), weight)
        return round_ste((weight / step).clamp(self.low, self.high)) * step

    @torch.no_grad()
    def freeze(self, weight: Tensor) -> FrozenWeight:
        scale = self.raw_step.detach().clamp_min(SMALLEST_STEP)
        codes = (weight / per_channel(scale, weight)).clamp(self.low, self.high).round()
        return FrozenWeight(codes.to(torch.int16), scale.clone())


__all__ = ["LsqActivation", "LsqWeight"]
