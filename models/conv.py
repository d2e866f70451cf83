"""A quantised convolution with its batch-norm, and what evaluation means by it.

Training computes ``BN(conv(values, weights))`` on fake-quantised numbers with batch statistics.

Evaluation is *defined* (DESIGN 3.1) on integers::

    acc = conv(codes, weight codes)          exact integers
    y   = acc * m + b                        float32, two roundings
    m   = gain * gamma * step * scale / sqrt(var + eps)     folded in float64, rounded once
    b   = gain * (beta - gamma * mean / sqrt(var + eps))

``gain`` is CQB's alpha (Eq. 6-9), 1 elsewhere. Sums of integers below 2^24 are exact in float32 in
any order; where a sum could pass that, float64 computes it and one rounding brings it to float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import ModelError
from .quantizers import FrozenWeight, WeightQuantizer, build_weight

#: Integers up to here are exact in float32.
EXACT_LIMIT = 2**24


class Affine(NamedTuple):
    """``y = acc * multiplier + bias`` per output channel; both float32 ``[C_out]``."""

    multiplier: Tensor
    bias: Tensor


def fold_batch_norm(bn: nn.BatchNorm2d, scale: Tensor, step: Tensor, gain: Tensor | None) -> Affine:
    """Fold scale, step, batch-norm and gain in float64 and round once to float32."""
    if bn.running_mean is None or bn.running_var is None:
        raise ModelError("batch-norm without running statistics cannot be folded")
    root = (bn.running_var.double() + bn.eps).sqrt()
    slope = bn.weight.double() / root
    factor = 1.0 if gain is None else gain.double()
    multiplier = factor * (slope * (scale.double() * step.double()))
    bias = factor * (bn.bias.double() - slope * bn.running_mean.double())
    return Affine(multiplier.float(), bias.float())


class FrozenWeightStore(nn.Module):
    """Stands where a weight quantizer stood: codes and scale, fixed."""

    codes: Tensor
    scale: Tensor

    def __init__(self, frozen: FrozenWeight) -> None:
        super().__init__()
        self.register_buffer("codes", frozen.codes)
        self.register_buffer("scale", frozen.scale)


class QuantConv2d(nn.Module):
    """Convolution without bias, weight quantizer, batch-norm.

    ``bits=32`` leaves the weight as it is (the full-precision twin). After
    :meth:`freeze_weight` only integer codes and scales remain and training is over.
    """

    quantizer: WeightQuantizer | FrozenWeightStore | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bits: int,
        kind: str,
        top: int,
    ) -> None:
        """``top`` is the largest magnitude that an input code can have; it bounds the sums."""
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.bits, self.kind, self.top = bits, kind, top
        weight = torch.empty(out_channels, in_channels, kernel, kernel)
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        self.weight: nn.Parameter | None = nn.Parameter(weight)
        self.quantizer = build_weight(kind, bits, weight) if bits < 32 else None
        self.bn = nn.BatchNorm2d(out_channels)

    def latent(self) -> Tensor:
        """The trainable weight ``[C_out, C_in, k, k]``; an error after freezing."""
        if self.weight is None:
            raise ModelError("a frozen detector has no latent weights: it cannot be trained")
        return self.weight

    def frozen(self) -> FrozenWeight:
        """Weight codes and scales as evaluation uses them."""
        if isinstance(self.quantizer, FrozenWeightStore):
            return FrozenWeight(self.quantizer.codes, self.quantizer.scale)
        if self.quantizer is None:
            raise ModelError("a full-precision convolution has no integer codes")
        return self.quantizer.freeze(self.latent())

    def freeze_weight(self) -> None:
        """Replace latent weight and quantizer by fixed codes and scales."""
        if not isinstance(self.quantizer, FrozenWeightStore):
            self.quantizer = FrozenWeightStore(self.frozen())
            self.weight = None

    def affine(self, frozen: FrozenWeight, step: Tensor, gain: Tensor | None = None) -> Affine:
        """The ``acc * m + b`` of evaluation."""
        return fold_batch_norm(self.bn, frozen.scale, step, gain)

    def accumulate(self, codes: Tensor, weight_codes: Tensor) -> Tensor:
        """Exact integer sums of ``codes`` ``[N, C_in, H, W]``, rounded once to float32."""
        largest = float(weight_codes.double().abs().flatten(1).sum(1).max()) * self.top
        dtype = torch.float32 if largest < EXACT_LIMIT else torch.float64
        acc = F.conv2d(
            codes.to(dtype), weight_codes.to(dtype), stride=self.stride, padding=self.padding
        )
        return acc.to(torch.float32)

    def forward(self, values: Tensor) -> Tensor:
        """Training (and the twin): batch-norm of the convolution of fake-quantised values."""
        weight = self.latent()
        if isinstance(self.quantizer, WeightQuantizer):
            weight = self.quantizer(weight)
        out: Tensor = self.bn(F.conv2d(values, weight, stride=self.stride, padding=self.padding))
        return out

    def evaluate(self, codes: Tensor, step: Tensor, gain: Tensor | None = None) -> Tensor:
        """Evaluation on codes ``[N, C_in, H, W]``: ``acc * m + b``."""
        frozen = self.frozen()
        m, b = self.affine(frozen, step, gain)
        acc = self.accumulate(codes, frozen.codes)
        return acc * m.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)
