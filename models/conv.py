"""A quantised convolution with its batch-norm, and what evaluation means by it.

Training computes ``BN(conv(values, weights))`` on fake-quantised numbers with batch statistics.

Evaluation is *defined* (DESIGN 3.1) on integers::

    acc = conv(code - zero, weight codes)    exact integers
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

from .codes import Codes
from .errors import ModelError
from .quantizers import FULL_PRECISION, FrozenWeight, WeightQuantizer, build_weight

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

    It reads :class:`Codes` in evaluation and fake-quantised values in training. ``bits=32`` leaves
    the weight as it is (the full-precision twin), and it reads values always. After
    :meth:`freeze_weight` only integer codes and scales remain and training is over.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel: side of the square kernel.
        stride: of both sides.
        padding: zeros around the image (values; the code that stands for 0).
        groups: groups of channels that are convolved apart; ``in_channels`` for a depthwise one.
        bits: width of the weights, 32 for none.
        kind: weight quantizer, one of :data:`.quantizers.WEIGHTS`.
        top: largest magnitude that ``code - zero`` of the input can have; it bounds the sums. By
            default that of codes of ``bits`` bits.
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
        kind: str = "n2uq",
        groups: int = 1,
        top: int | None = None,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ModelError(
                f"{in_channels} -> {out_channels} channels cannot be convolved in {groups} groups"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.groups, self.bits, self.kind = groups, bits, kind
        self.top = 2**bits - 1 if top is None else top
        weight = torch.empty(self.weight_shape)
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        self.weight: nn.Parameter | None = nn.Parameter(weight)
        self.quantizer = None if bits == FULL_PRECISION else build_weight(kind, bits, weight)
        self.bn = nn.BatchNorm2d(out_channels)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """``[C_out, C_in / groups, k, k]``."""
        return self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel

    def latent(self) -> Tensor:
        """The trainable weight ``[C_out, C_in / groups, k, k]``; an error after freezing."""
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

    def accumulate(self, centred: Tensor, weight_codes: Tensor) -> Tensor:
        """Exact integer sums of ``code - zero`` ``[N, C_in, H, W]``, rounded once to float32."""
        largest = float(weight_codes.double().abs().flatten(1).sum(1).max()) * self.top
        dtype = torch.float32 if largest < EXACT_LIMIT else torch.float64
        acc = self._convolve(centred.to(dtype), weight_codes.to(dtype))
        return acc.to(torch.float32)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=self.groups)

    def forward(self, x: Tensor | Codes, gain: Tensor | None = None) -> Tensor:
        """Batch-norm of the convolution, times ``gain``.

        Args:
            x: codes in evaluation, values in training and in full precision, ``[N, C_in, H, W]``.
            gain: float32 scalar; folded into the affine in evaluation.

        Raises:
            ModelError: values where codes are needed: no quantizer stands before this layer.
        """
        if isinstance(x, Codes):
            return self.evaluate(x, gain)
        if self.quantizer is not None and not self.training:
            raise ModelError(
                "a quantised convolution needs the codes of a quantizer in evaluation, and was "
                "given values; put an ActivationChain before it"
            )
        weight = self.latent()
        if isinstance(self.quantizer, WeightQuantizer):
            weight = self.quantizer(weight)
        out: Tensor = self.bn(self._convolve(x, weight))
        return out if gain is None else out * gain

    def evaluate(self, x: Codes, gain: Tensor | None = None) -> Tensor:
        """``acc * m + b`` of codes ``[N, C_in, H, W]``."""
        frozen = self.frozen()
        m, b = self.affine(frozen, x.step, gain)
        acc = self.accumulate(x.centred(), frozen.codes)
        return acc * m.reshape(1, -1, 1, 1) + b.reshape(1, -1, 1, 1)


def quantised_convolutions(module: nn.Module) -> list[tuple[str, QuantConv2d]]:
    """Every :class:`QuantConv2d` of ``module`` with its dotted name, full-precision ones too."""
    return [(name, m) for name, m in module.named_modules() if isinstance(m, QuantConv2d)]
