"""CQB, the Connected Quantized Block (paper Eq. 6-9).

``y = alpha * Q(Conv(x)) + (1 - alpha) * shortcut(x)``, alpha a learned scalar per convolution.
Inside ``Q(Conv(.))`` the order is N2UQ's and ReActNet's: shift, PReLU, shift, quantizer,
convolution, batch-norm. The shortcut is free of multiplications and follows the channel ratio:

* ``down`` (fewer out, Eq. 6-7): mean over each group of ``s`` neighbouring channels;
* ``up`` (more out, Eq. 8): the input concatenated with itself ``s`` times along the channels;
* ``equal`` (Eq. 9): average pooling with window = stride (window 1 is the identity).

MobileNetV2 projects 144 channels to 32 and 576 to 160, which the paper's groups of ``s`` do not
cover. There every channel is repeated ``out/g`` times and groups of ``in/g`` are averaged, ``g``
the greatest common divisor: the same groups where ``s`` is whole, and everywhere each input
channel weighs as much as every other.

A stride is taken by average pooling, window = stride, in all three (the paper does not say). The
last row and column of an odd side are pooled alone, so that the sizes match the convolution's. The
mean of a 2x2 window is the mean of its rows' means: runtimes add four numbers in different orders
(measured: ONNX Runtime at opset 17 and at opset 21), and two in one.

Every sum is written out in a fixed order, so that two runtimes round alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .chain import ActivationChain
from .codes import Codes
from .conv import QuantConv2d
from .errors import ModelError


class Shortcut(nn.Module):
    """CQB's auxiliary path; see the module's text for its three kinds."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if in_channels < out_channels and out_channels % in_channels:
            raise ModelError(
                f"CQB repeats its input a whole number of times, and {in_channels} channels do "
                f"not divide {out_channels}; choose widths that do, or build with cqb=False"
            )
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        if in_channels == out_channels:
            self.kind = "equal"
        else:
            self.kind = "down" if in_channels > out_channels else "up"

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, ceil(H/stride), ceil(W/stride)]``."""
        if self.stride > 1:
            x = _pool(_pool(x, (1, self.stride)), (self.stride, 1))
        if self.kind == "up":
            return torch.cat([x] * (self.out_channels // self.in_channels), dim=1)
        return self._mean(x) if self.kind == "down" else x

    def _mean(self, x: Tensor) -> Tensor:
        common = math.gcd(self.in_channels, self.out_channels)
        group, repeat = self.in_channels // common, self.out_channels // common
        total = self._members(x, 0, group, repeat)
        for member in range(1, group):
            total = total + self._members(x, member, group, repeat)
        return total * (1.0 / group)

    def _members(self, x: Tensor, member: int, group: int, repeat: int) -> Tensor:
        """The ``member``-th channel of every group, ``[N, C_out, H, W]``."""
        if repeat == 1:
            return x[:, member::group]
        chosen = [(c * group + member) // repeat for c in range(self.out_channels)]
        return x.index_select(1, torch.tensor(chosen, device=x.device))


def _pool(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Means of a row's or a column's neighbours; the last one of an odd side stays alone."""
    return F.avg_pool2d(x, window, ceil_mode=True, count_include_pad=False)


class CQB(nn.Module):
    """One connected quantised convolution: activation chain, convolution, weighted shortcut.

    Args:
        in_channels: input channels.
        out_channels: output channels; the kind of shortcut follows from the two.
        kernel: side of the kernel; padding keeps the size.
        stride: of the convolution and the shortcut.
        bits: width of activations and weights, 32 for the twin.
        activation: activation quantizer, one of :data:`.quantizers.ACTIVATIONS`.
        weight: weight quantizer, one of :data:`.quantizers.WEIGHTS`.
        slr: wrap the activation quantizer in SLR.
        groups: of the convolution; ``in_channels`` for a depthwise one.
        connected: ``False`` leaves alpha and the shortcut out.
        nonlinearity: of the chain, see :class:`.chain.ActivationChain`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        bits: int,
        activation: str = "n2uq",
        weight: str = "n2uq",
        slr: bool = True,
        groups: int = 1,
        connected: bool = True,
        nonlinearity: str = "rprelu",
    ) -> None:
        super().__init__()
        self.act = ActivationChain(
            in_channels, bits=bits, kind=activation, slr=slr, nonlinearity=nonlinearity
        )
        self.conv = QuantConv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            bits=bits,
            kind=weight,
            groups=groups,
        )
        self.shortcut = Shortcut(in_channels, out_channels, stride) if connected else None
        self.alpha = nn.Parameter(torch.tensor(0.5)) if connected else None

    def combine(self, x: Tensor, activated: Tensor | Codes) -> Tensor:
        """Convolve ``activated``, which :attr:`act` made of ``x``; add the shortcut of ``x``."""
        main: Tensor = self.conv(activated, self.alpha)
        if self.alpha is None or self.shortcut is None:
            return main
        rest = (1.0 - self.alpha.double()).float()
        auxiliary: Tensor = self.shortcut(x)
        return main + auxiliary * rest

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` float32 to ``[N, C_out, ceil(H/stride), ceil(W/stride)]``."""
        return self.combine(x, self.act(x))
