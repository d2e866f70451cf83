"""ResNet detectors, built from connected quantised blocks.

ResNet-23 is not spelt out in the paper. Basic blocks ``[2, 2, 2, 3]`` with widths 64-512, a 7x7
stem and 1x1 quantised downsampling come closest to Table 4 (DESIGN 2): that is what stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from .config import DetectorConfig
from .conv import QuantConv2d
from .cqb import CQB
from .detector import Detector, Head, cqb
from .stem import Stem


class _Block(nn.Module):
    """What the two residual blocks share: the residual, downsampled where the shape changes.

    The downsampling convolution is 1x1, strided and quantised like the others; it reads the codes
    of the block's first quantizer (a float one before a quantizer would not be exact, and costs).
    """

    def __init__(
        self, config: DetectorConfig, name: str, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        self.downsample: QuantConv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = QuantConv2d(
                in_channels,
                out_channels,
                kernel=1,
                stride=stride,
                bits=config.bits_of(f"{name}.downsample"),
                kind=config.weight,
                top=2 ** config.bits_of(f"{name}.conv1") - 1,
            )

    def path(self) -> list[CQB]:
        """The block's convolutions in order."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def forward(self, x: Tensor) -> Tensor:
        """Main path plus residual."""
        first, *others = self.path()
        activated = first.act(x)
        out = first.combine(x, activated)
        for layer in others:
            out = layer(out)
        residual = x if self.downsample is None else self.downsample(activated)
        return out + residual


class BasicBlock(_Block):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(
        self, config: DetectorConfig, name: str, in_channels: int, planes: int, stride: int
    ) -> None:
        super().__init__(config, name, in_channels, planes, stride)
        self.conv1 = cqb(config, f"{name}.conv1", in_channels, planes, 3, stride)
        self.conv2 = cqb(config, f"{name}.conv2", planes, planes, 3)

    def path(self) -> list[CQB]:
        return [self.conv1, self.conv2]


class Bottleneck(_Block):
    """1x1 down, 3x3 equal (carries the stride), 1x1 up."""

    expansion = 4

    def __init__(
        self, config: DetectorConfig, name: str, in_channels: int, planes: int, stride: int
    ) -> None:
        super().__init__(config, name, in_channels, planes * self.expansion, stride)
        self.conv1 = cqb(config, f"{name}.conv1", in_channels, planes, 1)
        self.conv2 = cqb(config, f"{name}.conv2", planes, planes, 3, stride)
        self.conv3 = cqb(config, f"{name}.conv3", planes, planes * self.expansion, 1)

    def path(self) -> list[CQB]:
        return [self.conv1, self.conv2, self.conv3]


#: Block class and blocks per stage of each architecture.
LAYOUTS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet23": (BasicBlock, (2, 2, 2, 3)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
WIDTHS = (64, 128, 256, 512)


class ResidualBlock(Protocol):
    """A block's class: how one is made, and how many times its planes it gives out."""

    expansion: int

    def __call__(
        self, config: DetectorConfig, name: str, in_channels: int, planes: int, stride: int, /
    ) -> nn.Module: ...


def residual_stages(
    config: DetectorConfig,
    block: ResidualBlock,
    depths: Sequence[int],
    widths: Sequence[int],
) -> tuple[nn.Sequential, int]:
    """Stages of ``depths`` blocks, each but the first halving the sides in its first block.

    Returns:
        The stages, named ``stages.I.J`` by the blocks themselves, and the channels that come out.
    """
    channels = config.channels(widths[0])
    stages = []
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        planes, blocks = config.channels(width), []
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            blocks.append(block(config, f"stages.{index}.{position}", channels, planes, stride))
            channels = planes * block.expansion
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages), channels


class ResNetDetector(Detector):
    """ResNet-23, -34 or -50."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        block, depths = LAYOUTS[config.arch]
        channels = config.channels(WIDTHS[0])
        self.stem = Stem(
            channels,
            quantized=config.quantized,
            representation=config.representation,
            std=config.std,
        )
        self.stages, channels = residual_stages(config, block, depths, WIDTHS)
        self.head = Head(channels, quantized=config.quantized)
