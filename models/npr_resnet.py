"""The published NPR detector's network (Tan et al., CVPR 2024): half a ResNet-50, ReLU behind.

A 3x3 stem of stride 2 with max pooling, then the first two stages of a ResNet-50 (3 and 4
bottlenecks; the second stage halves the sides in its 3x3 convolution), the mean over both sides and
one linear layer. As in the published network a ReLU stands behind each batch-norm and behind each
residual sum, so that the residual carries what the ReLU has passed. In front of each convolution
that is a chain: none before a block's first one, whose input is rectified already, ReLU before the
other two.

The published network is in full precision. Here it is built at every width, so that an imported
one can be calibrated or trained further; the downsampling convolution then reads the codes of the
block's first quantizer, as in :mod:`.resnet`. CQB's shortcuts are added where the configuration
asks for them; the published network has none (``cqb=False``).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .config import DetectorConfig
from .conv import QuantConv2d
from .detector import Detector, Head, cqb
from .stem import Stem

#: Channels inside the blocks of each stage, and blocks.
WIDTHS, DEPTHS = (64, 128), (3, 4)
#: A block gives this many times the channels inside it.
EXPANSION = 4


class PostBottleneck(nn.Module):
    """1x1 down, 3x3 (carries the stride), 1x1 up; ReLU behind each of them and behind the sum."""

    def __init__(
        self, config: DetectorConfig, name: str, in_channels: int, planes: int, stride: int
    ) -> None:
        super().__init__()
        out = planes * EXPANSION
        self.conv1 = cqb(config, f"{name}.conv1", in_channels, planes, 1, nonlinearity="none")
        self.conv2 = cqb(config, f"{name}.conv2", planes, planes, 3, stride, nonlinearity="relu")
        self.conv3 = cqb(config, f"{name}.conv3", planes, out, 1, nonlinearity="relu")
        self.downsample: QuantConv2d | None = None
        if stride != 1 or in_channels != out:
            self.downsample = QuantConv2d(
                in_channels,
                out,
                kernel=1,
                stride=stride,
                bits=config.bits_of(f"{name}.downsample"),
                kind=config.weight,
                top=2 ** config.bits_of(f"{name}.conv1") - 1,
            )

    def forward(self, x: Tensor) -> Tensor:
        """``relu(main path + residual)`` of ``[N, C, H, W]``, which a ReLU has passed."""
        activated = self.conv1.act(x)
        out = self.conv3(self.conv2(self.conv1.combine(x, activated)))
        residual = x if self.downsample is None else self.downsample(activated)
        return F.relu(out + residual)


class NprResNetDetector(Detector):
    """The published NPR detector; ``config.width`` scales every channel count."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        channels = config.channels(WIDTHS[0])
        self.stem = Stem(
            channels,
            quantized=config.quantized,
            representation=config.representation,
            kernel=3,
            std=config.std,
        )
        stages = []
        for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            planes, blocks = config.channels(width), []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                name = f"stages.{index}.{position}"
                blocks.append(PostBottleneck(config, name, channels, planes, stride))
                channels = planes * EXPANSION
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = Head(channels, quantized=config.quantized, prelu=False)
