"""The stem: pixels, their representation, the first convolution.

The convolution's weights are quantised to 8 bits per output channel after the pixel normalisation
is multiplied in, and pixels are integers, so in evaluation it is an exact integer convolution: for
a 7x7 kernel ``255 * 147 * 127`` is below 2^24.

Two representations (the ablation's first bar, paper Fig. 9):

* ``npr``: the NPR residual times 2/3 (Eq. 1-2). The mean of the normalisation cancels.
* ``rgb``: pixels minus their mean. The mean is rounded to a whole pixel value, so that the
  difference stays an integer and what the convolution pads with is still the mean's own zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .codes import Codes
from .conv import QuantConv2d
from .errors import ModelError
from .npr import NPR_GAIN, crop_to_even, npr, pixels
from .quantizers import FULL_PRECISION

STEM_BITS = 8
#: Largest magnitude of a pixel, and of an NPR residual.
PIXEL_TOP = 255
#: ImageNet's standard deviation of pixels scaled to 0..1, as the field normalises with.
IMAGENET_STD = (0.229, 0.224, 0.225)
#: ImageNet's mean, 0.485, 0.456, 0.406, as whole pixel values.
PIXEL_MEAN = (124.0, 116.0, 104.0)


def pixel_gain(representation: str) -> Tensor:
    """float32 scalar: what one unit of a pixel is worth to the stem."""
    return torch.tensor((NPR_GAIN if representation == "npr" else 1.0) / 255.0)


class Stem(nn.Module):
    """Representation, convolution of stride 2 with 8-bit weights, batch-norm, ReLU, max pooling.

    Args:
        channels: output channels.
        quantized: ``False`` keeps the weights as they are (the twin).
        representation: ``npr`` or ``rgb``.
        kernel: side of the kernel, odd.
        pool: close with 3x3 max pooling of stride 2.
        std: standard deviation of each colour, of pixels scaled to 0..1.
    """

    gain: Tensor

    def __init__(
        self,
        channels: int,
        *,
        quantized: bool = True,
        representation: str = "npr",
        kernel: int = 7,
        pool: bool = True,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if representation not in ("npr", "rgb"):
            raise ModelError(f"representation={representation!r} is neither npr nor rgb")
        self.quantized, self.representation, self.pool = quantized, representation, pool
        self.conv = QuantConv2d(
            3,
            channels,
            kernel,
            stride=2,
            padding=kernel // 2,
            bits=STEM_BITS if quantized else FULL_PRECISION,
            kind="minmax",
            top=PIXEL_TOP,
        )
        # The normalisation's 1/std lives in the weight, so that pixels stay integers.
        weight = self.conv.latent()
        with torch.no_grad():
            weight.div_(torch.tensor(std).reshape(1, 3, 1, 1))
        self.register_buffer("gain", pixel_gain(representation))

    def residual(self, image: Tensor) -> Tensor:
        """What the convolution sees, exact integers in float32, even sides.

        ``image``: pixels ``[N, 3, H, W]``, uint8 or floats holding 0..255.
        """
        even = crop_to_even(pixels(image))
        if self.representation == "npr":
            return npr(even)
        return even - torch.tensor(PIXEL_MEAN, device=even.device).reshape(1, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``[N, 3, H, W]`` pixels to ``[N, C, ceil(H/4), ceil(W/4)]``; half that without pool."""
        residual = self.residual(image)
        if self.training or not self.quantized:
            x = self.conv(residual * self.gain)
        else:
            x = self.conv(Codes(residual, self.gain, torch.zeros_like(self.gain)))
        x = F.relu(x)
        return F.max_pool2d(x, 3, stride=2, padding=1) if self.pool else x
