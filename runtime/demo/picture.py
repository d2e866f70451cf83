"""NPR as a picture: what is left of each pixel without the first of its 2x2 cell."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

#: Residuals are small: they are drawn so many times as large, around the middle grey.
GAIN = 4
_GREY = 128


def npr_picture(pixels: U8) -> U8:
    """NPR of ``pixels``, drawn: grey where a pixel equals the first one of its cell.

    Args:
        pixels: uint8 ``[3, h, w]``, sides even.

    Returns:
        uint8 ``[h, w, 3]``: ``128 + 4 * (pixel - first pixel of its cell)``, clipped to 0..255.
    """
    corner = pixels[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    residual = pixels.astype(np.int16) - corner
    drawn = np.clip(_GREY + GAIN * residual, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(drawn.transpose(1, 2, 0))


def png_bytes(picture: U8) -> bytes:
    """``picture``, uint8 ``[h, w, 3]``, as a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    # The least compression: most of the time would go there.
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
