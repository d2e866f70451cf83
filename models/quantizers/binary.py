"""One bit: sign activations and weights (ReActNet, Liu et al., ECCV 2020; Bi-Real Net for Eq. 2).

Activations. ``sign(x) = 2 code - 1`` with ``code = [x >= 0]``; the learned shift before it is the
chain's own (RSign is ``shift``, then ``sign``). Codes start at zero here as everywhere, so the
value handed on is ``2 code``, which is ``sign(x) + 1``: the batch-norm behind the convolution
absorbs the constant, and a convolution pads with code 0, the sign -1, where the published code pads
with 0.
The gradient is that of the piecewise polynomial that Bi-Real Net puts in place of the sign::

    d value / dx = 2 - 2 |x|   for |x| < 1, else 0

Weights. ``sign(w)`` times the mean magnitude of the output channel (XNOR-Net's L1 scale); the
gradient passes where ``|w| <= 1``, as published. A weight of exactly 0 counts as positive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import ActivationQuantizer, FrozenWeight, WeightQuantizer, per_channel

_SMALLEST_SCALE = 1e-8
#: Distance of the two values: ``sign`` steps from -1 to 1.
STEP = 2.0


class _Sign(torch.autograd.Function):
    """``2 [x >= 0]`` forwards, Bi-Real Net's triangle backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype) * STEP

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = (2.0 - 2.0 * x.abs()).clamp_min(0.0)
        return grad * slope


class BinaryActivation(ActivationQuantizer):
    """The sign of the input: codes 0 and 1."""

    fixed_step: Tensor

    def __init__(self, bits: int = 1) -> None:
        if bits != 1:
            raise ValueError(f"binary is a quantizer of one bit, not of {bits}")
        super().__init__(bits)
        self.register_buffer("fixed_step", torch.tensor(STEP))

    @property
    def step(self) -> Tensor:
        return self.fixed_step

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = _Sign.apply(x)  # type: ignore[no-untyped-call]
        return value

    def count(self, x: Tensor) -> Tensor:
        return (x >= 0).to(torch.float64)


class BinaryWeight(WeightQuantizer):
    """Weights at ``+-scale``, the scale their mean magnitude in the output channel."""

    def __init__(self, bits: int = 1) -> None:
        if bits != 1:
            raise ValueError(f"binary is a quantizer of one bit, not of {bits}")
        super().__init__(bits)

    def codebook(self) -> np.ndarray:
        return np.array([-1, 1], dtype=np.int16)

    def forward(self, weight: Tensor) -> Tensor:
        mean = weight.detach().flatten(1).abs().mean(dim=1).clamp_min(_SMALLEST_SCALE)
        signs = per_channel(mean, weight) * torch.where(weight >= 0, 1.0, -1.0)
        clipped = weight.clamp(-1.0, 1.0)
        return (signs - clipped).detach() + clipped

    @torch.no_grad()
    def freeze(self, weight: Tensor) -> FrozenWeight:
        scale = weight.double().flatten(1).abs().mean(dim=1).clamp_min(_SMALLEST_SCALE)
        codes = torch.where(weight >= 0, 1, -1).to(torch.int16)
        return FrozenWeight(codes, scale.float())


__all__ = ["BinaryActivation", "BinaryWeight"]
