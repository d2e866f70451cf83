"""Images to the pixels that a model takes, decoded and cropped with as few copies as can be.

The result is that of :func:`~.preprocess.prepare` on :func:`~.images.load_rgb`, pixel by pixel.
Cropping comes first, so that of a large photo only the part that is kept is converted.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import ImageError
from .heap import give_back
from .images import LARGE, MAX_PIXELS, Source, name_of, opened, rgb_from_upright, upright
from .preprocess import kept, prepare

if TYPE_CHECKING:
    from PIL import Image

U8 = npt.NDArray[np.uint8]

_one_large_image = threading.Lock()


def load_prepared(source: Source, sides: dict[str, int], max_pixels: int = MAX_PIXELS) -> U8:
    """The pixels of an image file that the model sees: uint8 ``[3, h, w]``, contiguous.

    Args:
        source: the image file, or its bytes.
        sides: what :func:`~.preprocess.prepare` takes.
        max_pixels: an image with more is refused before it is decoded.

    Raises:
        ImageError: as :func:`~.images.load_rgb` and :func:`~.preprocess.prepare`; names the file.
    """
    try:
        with opened(source, max_pixels) as image:
            large = image.width * image.height > LARGE
            with _one_large_image if large else contextlib.nullcontext():
                image.seek(0)
                image.load()
                pixels = prepared(image, sides)
                if large:  # before the next one begins
                    image.close()
                    give_back()
                return pixels
    except _Refused as error:
        raise ImageError(f"{name_of(source)}: {error}") from error


def prepared(image: Image.Image, sides: dict[str, int]) -> U8:
    """The same of an image of Pillow's, in any mode; it is not changed.

    Raises:
        ImageError: a side is too short.
    """
    whole = upright(image)
    try:
        rows, columns = kept(whole.width, whole.height, **sides)
    except ImageError as error:
        raise _Refused(str(error)) from error
    box = (columns.start, rows.start, columns.stop, rows.stop)
    part = whole if box == (0, 0, *whole.size) else whole.crop(box)
    if part.mode != "RGB":
        return prepare(rgb_from_upright(part), **sides)
    planes = np.empty((3, part.height, part.width), dtype=np.uint8)
    for plane, channel in zip(planes, "RGB", strict=True):
        # Pillow takes the channel out of its four bytes a pixel: no array in between.
        plane[...] = np.frombuffer(part.tobytes("raw", channel), np.uint8).reshape(plane.shape)
    return planes


class _Refused(ImageError):
    """Decoded, but not usable; does not name the file."""
