"""Arrays as small pictures inside a page: photographs, NPR residuals, heat maps, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

from ...runtime.errors import ImageError, not_installed

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

#: How much a residual is enlarged around middle grey.
GAIN = 4
#: No heat map has a longer side.
HEAT_SIDE = 64
_QUALITY = 82
#: Stops of cividis (Nunez et al. 2018): even in lightness, the same to the colour-blind.
_CIVIDIS = np.array(
    [
        (0, 34, 78),
        (18, 53, 112),
        (59, 73, 108),
        (87, 93, 109),
        (112, 113, 115),
        (138, 134, 120),
        (165, 156, 116),
        (195, 179, 105),
        (225, 204, 85),
        (254, 232, 56),
    ],
    dtype=np.float64,
)


def photograph(image: U8) -> str:
    """``image`` uint8 ``[3, h, w]``, to look at."""
    return _uri(np.ascontiguousarray(image.transpose(1, 2, 0)), "WEBP")


def residual(image: U8) -> str:
    """The NPR residual of ``image``: each 2x2 cell less its top left pixel (paper Eq. 1-2)."""
    even = image[:, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2].astype(np.int16)
    corner = even[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    shown = np.clip(128 + GAIN * (even - corner), 0, 255).astype(np.uint8)
    return _uri(np.ascontiguousarray(shown.transpose(1, 2, 0)), "WEBP")


def heat_map(values: F32) -> str:
    """``values`` ``[h, w]`` over their own range, dark to light."""
    low, high = float(values.min()), float(values.max())
    level = (values.astype(np.float64) - low) / max(high - low, 1e-12)
    at = level * (len(_CIVIDIS) - 1)
    below = np.minimum(at.astype(np.int64), len(_CIVIDIS) - 2)
    part = (at - below)[..., np.newaxis]
    colour = _CIVIDIS[below] * (1 - part) + _CIVIDIS[below + 1] * part
    return _uri(np.round(colour).astype(np.uint8), "PNG")


def _uri(pixels: U8, form: str) -> str:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImageError(not_installed("Pillow", error=error)) from error
    stream = io.BytesIO()
    options = {"quality": _QUALITY, "method": 4} if form == "WEBP" else {"optimize": True}
    Image.fromarray(pixels).save(stream, form, **options)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{data}"
