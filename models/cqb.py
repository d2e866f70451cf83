"""CQB, the Connected Quantized Block (paper Eq. 6-9).

``y = alpha * Q(Conv(x)) + (1 - alpha) * shortcut(x)``, alpha a learned scalar per convolution.
Inside ``Q(Conv(.))`` the order is N2UQ's and ReActNet's: shift, PReLU, shift, quantizer,
convolution, batch-norm. The shortcut is free of multiplications and follows the channel ratio:

* ``down`` (fewer out, Eq. 6-7): mean over each group of ``s`` neighbouring channels;
* ``up`` (more out, Eq. 8): the input concatenated with itself ``s`` times along the channels;
* ``equal`` (Eq. 9): average pooling with window = stride (window 1 is the identity).

A stride is taken by average pooling, window = stride, in all three (the paper does not say). The
last row and column of an odd side are pooled alone, so that the sizes match the convolution's.

Every sum is written out in a fixed order, so that two runtimes round alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv import QuantConv2d
from .errors import ModelError
from .quantizers import FULL_PRECISION, ActivationQuantizer, build_activation


class ChannelShift(nn.Module):
    """A learned bias per channel (ReActNet's shift)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``x + bias`` over ``[N, C, H, W]``."""
        return x + self.bias.reshape(1, -1, 1, 1)


class ActivationChain(nn.Module):
    """Shift, PReLU, shift, quantizer: everything between a sum and the next convolution.

    Element-wise, per channel and (with slopes >= 0) monotone: the exporter folds it whole into one
    table of thresholds per channel (DESIGN 3.3).
    """

    quantizer: ActivationQuantizer | None

    def __init__(self, channels: int, *, bits: int, kind: str, slr: bool) -> None:
        super().__init__()
        self.shift_in = ChannelShift(channels)
        self.prelu = nn.PReLU(channels)
        self.shift_out = ChannelShift(channels)
        self.quantizer = None if bits == FULL_PRECISION else build_activation(kind, bits, slr)

    def before_quantizer(self, x: Tensor) -> Tensor:
        """The element-wise part, float32."""
        out: Tensor = self.shift_out(self.prelu(self.shift_in(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Training: fake-quantised values (the twin: plain values)."""
        x = self.before_quantizer(x)
        return x if self.quantizer is None else self.quantizer(x)

    def codes(self, x: Tensor) -> Tensor:
        """Evaluation: integer codes held in float32."""
        if self.quantizer is None:
            raise ModelError("the full-precision twin has no codes")
        return self.quantizer.codes(self.before_quantizer(x))


class Shortcut(nn.Module):
    """CQB's auxiliary path; see the module's text for its three kinds."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if in_channels % out_channels and out_channels % in_channels:
            raise ModelError(
                f"CQB needs channel counts that divide each other, got {in_channels} -> "
                f"{out_channels}; choose widths that do, or build with cqb=False"
            )
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        if in_channels == out_channels:
            self.kind = "equal"
        else:
            self.kind = "down" if in_channels > out_channels else "up"

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, ceil(H/stride), ceil(W/stride)]``."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        if self.kind == "up":
            return torch.cat([x] * (self.out_channels // self.in_channels), dim=1)
        if self.kind == "down":
            group = self.in_channels // self.out_channels
            total = x[:, 0::group]
            for member in range(1, group):
                total = total + x[:, member::group]
            return total * (1.0 / group)
        return x


class CQB(nn.Module):
    """One connected quantised convolution: activation chain, convolution, weighted shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        bits: int,
        activation: str,
        weight: str,
        slr: bool,
        connected: bool = True,
    ) -> None:
        super().__init__()
        self.act = ActivationChain(in_channels, bits=bits, kind=activation, slr=slr)
        self.conv = QuantConv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            bits=bits,
            kind=weight,
            top=2**bits - 1,
        )
        self.shortcut = Shortcut(in_channels, out_channels, stride) if connected else None
        self.alpha = nn.Parameter(torch.tensor(0.5)) if connected else None

    @property
    def step(self) -> Tensor:
        """Worth of one activation code, float32 scalar."""
        if self.act.quantizer is None:
            raise ModelError("the full-precision twin has no step")
        return self.act.quantizer.step

    def activate(self, x: Tensor) -> Tensor:
        """What the convolution reads: values in training and in the twin, codes in evaluation."""
        if self.training or self.act.quantizer is None:
            out: Tensor = self.act(x)
            return out
        return self.act.codes(x)

    def combine(self, x: Tensor, activated: Tensor) -> Tensor:
        """Convolve what :meth:`activate` gave for ``x`` and add the weighted shortcut."""
        if self.training or self.act.quantizer is None:
            main: Tensor = self.conv(activated)
            if self.alpha is None or self.shortcut is None:
                return main
            auxiliary: Tensor = self.shortcut(x)
            return main * self.alpha + auxiliary * (1.0 - self.alpha)
        main = self.conv.evaluate(activated, self.step, self.alpha)
        if self.alpha is None or self.shortcut is None:
            return main
        rest = (1.0 - self.alpha.double()).float()
        auxiliary = self.shortcut(x)
        return main + auxiliary * rest

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` float32 to ``[N, C_out, ceil(H/stride), ceil(W/stride)]``."""
        return self.combine(x, self.activate(x))
