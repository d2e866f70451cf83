"""Re-synthesis: an image sent through a small random network that up-samples.

What NPR detectors look for is the trace that up-sampling leaves between neighbouring pixels (Tan et
al., CVPR 2024), whatever network it stands in. A training set shows a handful of networks; a
detector learns these. So some of the fakes are made anew, each by a network of its own that nobody
trained: the image is averaged down by 2 or 4, turned into a few channels by a random convolution,
up-sampled as often (nearest or bilinear) with a random convolution behind each step, brought back
to three colours by a 3x3, 5x5 or 9x9 kernel, and mixed with the plainly up-sampled image. Its
contrast and the phase of its grid are random too. The result is a fake by construction: every pixel
of it came out of a network that up-samples.

Everything is a function of the generator that is passed in, so that a training run that is killed
and resumed sees the same images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Rgb = npt.NDArray[np.uint8]

#: Channels of the random network.
HIDDEN = 12
#: Slope of its leaky ReLUs.
SLOPE = 0.2
#: How its features are up-sampled; drawn with these odds.
UPSAMPLING = ("nearest", "nearest", "nearest", "bilinear")
#: Sides of the last kernel.
LAST_KERNELS = (3, 5, 9)
#: Contrast of the network's picture, relative to the image's own.
CONTRAST = (0.5, 2.0)
#: Spread of the random filter that half of the plainly up-sampled images go through.
FILTER = 0.12


def resynthesise(image: Rgb, rng: np.random.Generator) -> Rgb:
    """``image`` as a random up-sampling network makes it: uint8 ``[H, W, 3]``, the same size.

    Args:
        image: uint8 ``[H, W, 3]``, sides of 16 pixels or more.
        rng: what everything random is drawn from.
    """
    height, width = image.shape[:2]
    steps = int(rng.integers(1, 3))
    factor = 2**steps
    pixels = torch.from_numpy(image.astype(np.float32) / 255.0).permute(2, 0, 1)[None]
    with torch.no_grad():
        padded = _padded(pixels, factor, rng)
        base = F.avg_pool2d(padded, factor)
        features = _activated(_convolved(base, HIDDEN, 3, rng))
        for _ in range(steps):
            how = UPSAMPLING[rng.integers(len(UPSAMPLING))]
            features = _activated(_convolved(_doubled(features, how), HIDDEN, 3, rng))
            base = _doubled(base, ("nearest", "bilinear")[rng.integers(2)])
        kernel = LAST_KERNELS[rng.integers(len(LAST_KERNELS))]
        picture = _standardised(_convolved(features, 3, kernel, rng))
        if rng.random() < 0.5:
            base = F.conv2d(F.pad(base, (1,) * 4, mode="reflect"), _near_identity(rng))
        mixed = _mixed(base, picture, rng)
    window = mixed[0, :, factor : factor + height, factor : factor + width]
    return np.ascontiguousarray((window.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def _padded(pixels: Tensor, factor: int, rng: np.random.Generator) -> Tensor:
    """Mirrored at the edges so that the grid starts at a random phase and ``factor`` fits."""
    height, width = pixels.shape[2:]
    top, left = (int(v) for v in rng.integers(0, factor, 2))
    bottom = 2 * factor - top + (-height) % factor
    right = 2 * factor - left + (-width) % factor
    return F.pad(pixels, (left, right, top, bottom), mode="reflect")


def _convolved(x: Tensor, channels: int, kernel: int, rng: np.random.Generator) -> Tensor:
    """A convolution with random weights of He's spread, mirrored at the edges."""
    fan = x.shape[1] * kernel**2
    weight = rng.standard_normal((channels, x.shape[1], kernel, kernel), dtype=np.float32)
    mirrored = F.pad(x, (kernel // 2,) * 4, mode="reflect")
    return F.conv2d(mirrored, torch.from_numpy(weight * np.float32((2 / fan) ** 0.5)))


def _doubled(x: Tensor, how: str) -> Tensor:
    corners = None if how == "nearest" else False
    return F.interpolate(x, scale_factor=2.0, mode=how, align_corners=corners)


def _standardised(x: Tensor) -> Tensor:
    """Each channel of mean 0 and spread 1 (instance normalisation)."""
    centred = x - x.mean((2, 3), keepdim=True)
    return centred / (x.std((2, 3), keepdim=True) + 1e-3)


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(_standardised(x), SLOPE)


def _near_identity(rng: np.random.Generator) -> Tensor:
    """A 3x3 filter of colours that nearly leaves them as they are."""
    weight = torch.from_numpy(rng.standard_normal((3, 3, 3, 3), dtype=np.float32) * FILTER)
    weight[:, :, 1, 1] += torch.eye(3)
    return weight


def _mixed(base: Tensor, picture: Tensor, rng: np.random.Generator) -> Tensor:
    """The image's mean, its own deviation from it, and the network's, in random shares."""
    share = float(rng.random())
    contrast = float(np.exp(rng.uniform(*np.log(CONTRAST))))
    spread = base.std() * contrast + 0.02
    mean = base.mean((2, 3), keepdim=True)
    return mean + (1 - share) * (base - mean) + share * spread * picture
