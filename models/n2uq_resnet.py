"""N2UQ's published ResNet-18, -34 and -50 (Liu et al., CVPR 2022), with one logit.

Each quantised convolution has its chain before it: shift, PReLU, shift, quantizer; a further shift,
PReLU, shift stands behind each block's residual sum, and its result is both what the next block
reads and its residual. Where the shape changes, the downsampling convolution has a quantizer of its
own, straight on the block's input, without a chain. A 7x7 stem with max pooling, and a head without
PReLU, since the last block brings its own.

The published network sees normalised RGB pixels (``representation="rgb"``), its stem is in full
precision, and it has neither CQB's shortcuts nor SLR. Here the stem has 8-bit weights and a pixel
mean in whole values, as everywhere (:mod:`.stem`), and shortcuts and SLR are as the configuration
says.
"""

from __future__ import annotations

import abc

from torch import Tensor, nn

from .chain import ActivationChain
from .config import DetectorConfig
from .cqb import CQB
from .detector import Detector, Head, cqb
from .quantizers import FULL_PRECISION
from .resnet import WIDTHS, residual_stages
from .stem import Stem


class _Block(nn.Module, abc.ABC):
    """What the two blocks share: the residual, and the chain that closes the block.

    A subclass makes its convolutions first and then calls :meth:`_close`, so that layers are named
    in the order in which they run.
    """

    downsample: CQB | None
    closing: ActivationChain

    def _close(
        self, config: DetectorConfig, name: str, in_channels: int, out_channels: int, stride: int
    ) -> None:
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            layer = f"{name}.downsample"
            self.downsample = CQB(
                in_channels,
                out_channels,
                kernel=1,
                stride=stride,
                bits=config.bits_of(layer),
                activation=config.activation,
                weight=config.weight,
                slr=config.slr,
                connected=False,  # it is a residual itself
                nonlinearity="none",
            )
        self.closing = ActivationChain(out_channels, bits=FULL_PRECISION)

    @abc.abstractmethod
    def path(self) -> list[CQB]:
        """The block's convolutions in order, the downsampling one left out."""

    def forward(self, x: Tensor) -> Tensor:
        """Shift, PReLU, shift of main path plus residual, ``[N, C_out, H', W']``."""
        out = x
        for layer in self.path():
            out = layer(out)
        residual = x if self.downsample is None else self.downsample(x)
        return self.closing.before_quantizer(out + residual)


class N2uqBasicBlock(_Block):
    """Two 3x3 convolutions, the first one strided."""

    expansion = 1

    def __init__(
        self, config: DetectorConfig, name: str, in_channels: int, planes: int, stride: int
    ) -> None:
        super().__init__()
        self.conv1 = cqb(config, f"{name}.conv1", in_channels, planes, 3, stride)
        self.conv2 = cqb(config, f"{name}.conv2", planes, planes, 3)
        self._close(config, name, in_channels, planes, stride)

    def path(self) -> list[CQB]:
        return [self.conv1, self.conv2]


class N2uqBottleneck(_Block):
    """1x1 down, 3x3 equal (carries the stride), 1x1 up."""

    expansion = 4

    def __init__(
        self, config: DetectorConfig, name: str, in_channels: int, planes: int, stride: int
    ) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = cqb(config, f"{name}.conv1", in_channels, planes, 1)
        self.conv2 = cqb(config, f"{name}.conv2", planes, planes, 3, stride)
        self.conv3 = cqb(config, f"{name}.conv3", planes, out, 1)
        self._close(config, name, in_channels, out, stride)

    def path(self) -> list[CQB]:
        return [self.conv1, self.conv2, self.conv3]


#: Block class and blocks per stage of each architecture.
LAYOUTS: dict[str, tuple[type[N2uqBasicBlock] | type[N2uqBottleneck], tuple[int, ...]]] = {
    "n2uq_resnet18": (N2uqBasicBlock, (2, 2, 2, 2)),
    "n2uq_resnet34": (N2uqBasicBlock, (3, 4, 6, 3)),
    "n2uq_resnet50": (N2uqBottleneck, (3, 4, 6, 3)),
}


class N2uqResNetDetector(Detector):
    """N2UQ's ResNet-18, -34 or -50 as a detector."""

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
        self.head = Head(channels, quantized=config.quantized, prelu=False)
