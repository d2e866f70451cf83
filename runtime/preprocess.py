"""Pixels as a bundle's model takes them: cropped, never resampled.

Resizing would destroy the up-sampling traces that NPR looks for. Crops start at even rows and
columns, because NPR works on 2x2 cells counted from the top left: an odd offset would show the
model other cells than those that the generator wrote.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import ImageError

U8 = npt.NDArray[np.uint8]


def prepare(rgb: U8, *, min_side: int, multiple: int, max_side: int) -> U8:
    """Crop an image to what the model accepts.

    Args:
        rgb: uint8 ``[H, W, 3]``.
        min_side: least side in pixels that the model takes.
        multiple: sides are cropped, at the right and the bottom, to a multiple of this.
        max_side: longer sides are cropped to this around their middle, at an even offset.

    Returns:
        uint8 ``[3, h, w]``, contiguous.

    Raises:
        ImageError: not uint8 ``[H, W, 3]``, or a side is too short.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ImageError(
            f"an image must be uint8 [height, width, 3], got {rgb.dtype} {list(rgb.shape)}"
        )
    rows, columns = kept(
        rgb.shape[1], rgb.shape[0], min_side=min_side, multiple=multiple, max_side=max_side
    )
    return np.ascontiguousarray(rgb[rows, columns].transpose(2, 0, 1))


def check_size(width: int, height: int, *, min_side: int, multiple: int, max_side: int) -> None:
    """Raise the :class:`ImageError` that :func:`prepare` would raise for an image of this size."""
    kept(width, height, min_side=min_side, multiple=multiple, max_side=max_side)


def kept(
    width: int, height: int, *, min_side: int, multiple: int, max_side: int
) -> tuple[slice, slice]:
    """The rows and columns that :func:`prepare` keeps of an image of this size.

    Raises:
        ImageError: a side is too short.
    """
    rows, columns = (_span(side, multiple, max_side) for side in (height, width))
    if min(rows.stop - rows.start, columns.stop - columns.start) < max(min_side, 1):
        raise ImageError(
            f"{width}x{height} pixels is too small; the model needs at least {min_side}x{min_side}"
        )
    return rows, columns


def _span(side: int, multiple: int, max_side: int) -> slice:
    """The part of one side that is kept."""
    length = min(side, max_side)
    start = (side - length) // 2
    start -= start % 2
    return slice(start, start + length - length % multiple)
