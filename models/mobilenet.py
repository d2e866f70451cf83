"""MobileNetV2 (Sandler et al., CVPR 2018) with connected quantised blocks.

The inverted residual's three convolutions are CQB's three kinds (paper 3.4): the expansion is *up*
(Eq. 8), the depthwise convolution *equal* (Eq. 9), the projection *down* (Eq. 6-7). Shift, PReLU
and shift stand before each, in place of ReLU6 behind it; the residual of blocks whose shape does
not change is kept. The first block has no expansion, and a 1x1 convolution to 1280 channels closes
the network, as published. The stem is the published 3x3 one of stride 2, without pooling.
"""

from __future__ import annotations

from torch import Tensor, nn

from .config import DetectorConfig
from .cqb import CQB
from .detector import Detector, Head, cqb
from .stem import Stem

#: Expansion, output channels, blocks and stride of each stage (Sandler et al., Table 2).
SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS, LAST_CHANNELS = 32, 1280


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 depthwise (carries the stride), 1x1 down; no expansion where it is 1."""

    def __init__(
        self,
        config: DetectorConfig,
        name: str,
        in_channels: int,
        out_channels: int,
        stride: int,
        expansion: int,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = None
        if expansion != 1:
            self.expand = cqb(config, f"{name}.expand", in_channels, hidden, 1)
        self.depthwise = cqb(config, f"{name}.depthwise", hidden, hidden, 3, stride, groups=hidden)
        self.project = cqb(config, f"{name}.project", hidden, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def path(self) -> list[CQB]:
        """The block's convolutions in order."""
        return [layer for layer in (self.expand, self.depthwise, self.project) if layer is not None]

    def forward(self, x: Tensor) -> Tensor:
        """Main path, plus the input where the shape is the same."""
        out = x
        for layer in self.path():
            out = layer(out)
        return out + x if self.residual else out


class MobileNetV2Detector(Detector):
    """MobileNetV2; ``config.width`` scales every channel count, the closing 1280 among them."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        channels = config.channels(STEM_CHANNELS)
        self.stem = Stem(
            channels,
            quantized=config.quantized,
            representation=config.representation,
            kernel=3,
            pool=False,
            std=config.std,
        )
        stages: list[nn.Module] = []
        for expansion, width, depth, first_stride in SETTINGS:
            blocks, planes = [], config.channels(width)
            for position in range(depth):
                name = f"stages.{len(stages)}.{position}"
                stride = first_stride if position == 0 else 1
                blocks.append(InvertedResidual(config, name, channels, planes, stride, expansion))
                channels = planes
            stages.append(nn.Sequential(*blocks))
        # A whole multiple of the input, so that CQB's repetition fits at every width.
        last = channels * max(1, round(config.channels(LAST_CHANNELS) / channels))
        stages.append(cqb(config, f"stages.{len(stages)}", channels, last, 1))
        self.stages = nn.Sequential(*stages)
        self.head = Head(last, quantized=config.quantized)
