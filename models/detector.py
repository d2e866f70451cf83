"""What every detector of the registry is: images in, one logit out."""

from __future__ import annotations

import abc

from torch import Tensor, nn
from torch.nn import functional as F

from .config import DetectorConfig
from .cqb import CQB


class Head(nn.Module):
    """PReLU, mean over both sides, linear layer: features ``[N, C, H, W]`` to logits ``[N]``.

    ``prelu=False`` leaves the PReLU out, for networks whose last block brings its own.

    Evaluation of a quantised detector sums in float64 and rounds once: the logit then does not
    depend on how a library orders float32 sums (which changes with the alignment of a tensor's
    memory), so that a checkpoint means one logit, to the bit.
    """

    def __init__(self, channels: int, *, quantized: bool, prelu: bool = True) -> None:
        super().__init__()
        self.quantized = quantized
        self.prelu = nn.PReLU(channels) if prelu else None
        self.fc = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.prelu is not None:
            x = self.prelu(x)
        if self.training or not self.quantized:
            logit: Tensor = self.fc(x.mean(dim=(2, 3)))
        else:
            mean = x.double().mean(dim=(2, 3))
            logit = F.linear(mean, self.fc.weight.double(), self.fc.bias.double()).float()
        return logit.squeeze(1)


class Detector(nn.Module, abc.ABC):
    """A deepfake detector; ``sigmoid(logit)`` is the score of *fake*.

    A subclass makes ``stem``, ``stages`` and ``head``; ``stages`` are called one after the other.
    """

    stem: nn.Module
    stages: nn.Sequential
    head: Head

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config

    def features(self, image: Tensor) -> Tensor:
        """``[N, 3, H, W]`` pixels to the last feature map ``[N, C, H', W']``."""
        out: Tensor = self.stages(self.stem(image))
        return out

    def forward(self, image: Tensor) -> Tensor:
        """Logits float32 ``[N]`` of images ``[N, 3, H, W]``: uint8, or floats holding 0..255."""
        logit: Tensor = self.head(self.features(image))
        return logit


def cqb(
    config: DetectorConfig,
    name: str,
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    nonlinearity: str = "rprelu",
) -> CQB:
    """The connected quantised convolution that ``config`` asks for at layer ``name``."""
    return CQB(
        in_channels,
        out_channels,
        kernel,
        stride,
        bits=config.bits_of(name),
        activation=config.activation,
        weight=config.weight,
        slr=config.slr,
        groups=groups,
        connected=config.cqb,
        nonlinearity=nonlinearity,
    )
