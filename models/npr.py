"""NPR, the neighbouring-pixel relationship (paper Eq. 1-2; Tan et al., CVPR 2024).

``npr(x) = x - up2(down2(x))`` with nearest-neighbour sampling both ways: from every pixel of a
2x2 cell its top-left pixel is taken away. Nothing but subtraction happens, so on pixel values
(integers 0..255 held in a float) the result is an exact integer in -255..255, and any per-channel
mean that a normalisation subtracts cancels exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Factor that the published NPR detector applies to the residual before its stem.
NPR_GAIN = 2.0 / 3.0


def crop_to_even(x: Tensor) -> Tensor:
    """Drop the last row and/or column of ``x`` ``[N, C, H, W]`` where H or W is odd."""
    height, width = x.shape[-2], x.shape[-1]
    return x[..., : height - height % 2, : width - width % 2]


def npr(x: Tensor) -> Tensor:
    """Return the NPR residual of ``x``.

    Args:
        x: ``[N, C, H, W]``, H and W even (see :func:`crop_to_even`), any float dtype.

    Returns:
        Same shape and dtype; ``out[..., 2i+a, 2j+b] = x[..., 2i+a, 2j+b] - x[..., 2i, 2j]``.

    >>> npr(torch.tensor([[[[10.0, 12.0], [9.0, 15.0]]]])).flatten().tolist()
    [0.0, 2.0, -1.0, 5.0]
    """
    corner = x[..., ::2, ::2]
    return x - F.interpolate(corner, scale_factor=2.0, mode="nearest")


def pixels(image: Tensor) -> Tensor:
    """Turn an image batch (uint8, or floats already holding 0..255) into float32 pixels."""
    return image.to(torch.float32)
