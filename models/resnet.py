"""ResNet detectors on NPR, built from connected quantised blocks.

ResNet-23 is not spelt out in the paper. Basic blocks ``[2, 2, 2, 3]`` with widths 64-512, a 7x7
stem and 1x1 quantised downsampling come closest to Table 4 (DESIGN 2): that is what stands here.

The stem reads pixels through NPR. Its weights are quantised to 8 bits per output channel after the
pixel normalisation is multiplied in, so in evaluation it too is an exact integer convolution:
``255 * 147 * 127`` is below 2^24.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import DetectorConfig
from .conv import QuantConv2d
from .cqb import CQB
from .npr import NPR_GAIN, crop_to_even, npr, pixels

STEM_BITS = 8
#: Largest magnitude of an NPR pixel.
_PIXEL_TOP = 255


class Stem(nn.Module):
    """NPR, 7x7 stride-2 convolution (8-bit weights), batch-norm, ReLU, max pooling."""

    std: Tensor

    def __init__(self, channels: int, config: DetectorConfig) -> None:
        super().__init__()
        self.quantized = config.quantized
        self.conv = QuantConv2d(
            3,
            channels,
            kernel=7,
            stride=2,
            padding=3,
            bits=STEM_BITS if config.quantized else config.bits,
            kind="minmax",
            top=_PIXEL_TOP,
        )
        # The normalisation's 1/std lives in the weight, so that pixels stay integers.
        weight = self.conv.latent()
        with torch.no_grad():
            weight.div_(torch.tensor(config.std).reshape(1, 3, 1, 1))
        self.register_buffer("gain", torch.tensor(NPR_GAIN / 255.0))

    gain: Tensor

    def residual(self, image: Tensor) -> Tensor:
        """NPR of ``[N, 3, H, W]`` pixels 0..255: exact integers in float32, even sides."""
        return npr(crop_to_even(pixels(image)))

    def forward(self, image: Tensor) -> Tensor:
        """``[N, 3, H, W]`` pixels to ``[N, C, ceil(H/4), ceil(W/4)]``."""
        residual = self.residual(image)
        if self.training or not self.quantized:
            x = self.conv(residual * self.gain)
        else:
            x = self.conv.evaluate(residual, self.gain)
        return F.max_pool2d(F.relu(x), 3, stride=2, padding=1)


class _Block(nn.Module):
    """What the two residual blocks share: the residual, downsampled where the shape changes.

    The downsampling convolution is 1x1, strided and quantised like the others; it reads the codes
    of the block's first quantizer (a float one before a quantizer would not be exact, and costs).
    """

    downsample: QuantConv2d | None

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: DetectorConfig):
        super().__init__()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = QuantConv2d(
                in_channels,
                out_channels,
                kernel=1,
                stride=stride,
                bits=config.bits,
                kind=config.weight,
                top=2**config.bits - 1,
            )

    def path(self) -> list[CQB]:
        """The block's convolutions in order."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def forward(self, x: Tensor) -> Tensor:
        """Main path plus residual."""
        first, *others = self.path()
        activated = first.activate(x)
        out = first.combine(x, activated)
        for layer in others:
            out = layer(out)
        residual = x
        if self.downsample is not None:
            if self.training or self.downsample.quantizer is None:
                residual = self.downsample(activated)
            else:
                residual = self.downsample.evaluate(activated, first.step)
        return out + residual


def _cqb(config: DetectorConfig, c_in: int, c_out: int, kernel: int, stride: int = 1) -> CQB:
    return CQB(
        c_in,
        c_out,
        kernel,
        stride,
        bits=config.bits,
        activation=config.activation,
        weight=config.weight,
        slr=config.slr,
        connected=config.cqb,
    )


class BasicBlock(_Block):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int, config: DetectorConfig) -> None:
        super().__init__(in_channels, planes, stride, config)
        self.conv1 = _cqb(config, in_channels, planes, 3, stride)
        self.conv2 = _cqb(config, planes, planes, 3)

    def path(self) -> list[CQB]:
        return [self.conv1, self.conv2]


class Bottleneck(_Block):
    """1x1 down, 3x3 equal (carries the stride), 1x1 up."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int, config: DetectorConfig) -> None:
        super().__init__(in_channels, planes * self.expansion, stride, config)
        self.conv1 = _cqb(config, in_channels, planes, 1)
        self.conv2 = _cqb(config, planes, planes, 3, stride)
        self.conv3 = _cqb(config, planes, planes * self.expansion, 1)

    def path(self) -> list[CQB]:
        return [self.conv1, self.conv2, self.conv3]


#: Block class and blocks per stage of each architecture.
LAYOUTS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet23": (BasicBlock, (2, 2, 2, 3)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
WIDTHS = (64, 128, 256, 512)


class Detector(nn.Module):
    """A deepfake detector: images in, one logit out; ``sigmoid(logit)`` is the score of *fake*."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        block, depths = LAYOUTS[config.arch]
        self.stem = Stem(WIDTHS[0], config)
        channels, stages = WIDTHS[0], []
        for index, (planes, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(channels, planes, stride, config))
                channels = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.prelu = nn.PReLU(channels)
        self.fc = nn.Linear(channels, 1)

    def features(self, image: Tensor) -> Tensor:
        """``[N, 3, H, W]`` pixels to the last feature map ``[N, C, H/32, W/32]``."""
        out: Tensor = self.stages(self.stem(image))
        return out

    def forward(self, image: Tensor) -> Tensor:
        """Logits float32 ``[N]`` of images ``[N, 3, H, W]``: uint8, or floats holding 0..255."""
        x: Tensor = self.prelu(self.features(image))
        logit: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logit.squeeze(1)


def quantized_layers(detector: nn.Module) -> list[tuple[str, CQB]]:
    """Every CQB with a quantizer, in the order of execution, with its dotted name."""
    return [
        (name, module)
        for name, module in detector.named_modules()
        if isinstance(module, CQB) and module.act.quantizer is not None
    ]
