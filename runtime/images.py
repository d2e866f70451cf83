"""Image files to raw RGB pixels, the same for training, parity and detection.

Files are hostile: only listed raster formats are opened, sizes are checked before a pixel is
decoded, and every failure is one :class:`ImageError` that names the file. A file's bytes in memory
are taken in place of its path; errors call them :data:`SENT`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ImageError, not_installed
from .listing import walk

if TYPE_CHECKING:
    from PIL import Image

Rgb = npt.NDArray[np.uint8]
#: An image file, or its bytes.
Source: TypeAlias = "str | os.PathLike[str] | bytes"

#: What an error calls bytes, which have no name.
SENT = "what was sent"
#: Formats that Pillow may try; anything else is refused before its parser sees a byte.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
#: Suffixes that a folder is searched for.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
)
#: Images with more pixels than this are refused (64 megapixels: 192 MB as RGB).
MAX_PIXELS = 64 * 1024 * 1024
#: Of a WebP fewer are taken: its decoder holds the image four times.
MAX_WEBP_PIXELS = 40 * 1024 * 1024
#: Images with more pixels than this are decoded one at a time, whatever number of threads ask.
LARGE = 8 * 1024 * 1024
#: Larger files are refused unread: no image of MAX_PIXELS needs more, and some decoders read
#: the whole file before they know the image's size.
MAX_FILE_BYTES = 1 << 30
#: Within so many bytes a PPM must have stated its size; comments may stand before it.
_PPM_HEADER = 4096
#: Smaller files are read at once.
_READ_AT_ONCE = 1 << 22


def require_pillow() -> None:
    """Raise :class:`ImageError` if images cannot be decoded at all on this machine."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImageError(not_installed("Pillow", error=error)) from error


def name_of(source: Source) -> str:
    """What an error calls ``source``."""
    return SENT if isinstance(source, bytes) else f"{source}"


def load_rgb(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Rgb:
    """Decode ``path`` to uint8 ``[H, W, 3]``, upright, first frame, alpha dropped.

    Greyscale, palette, CMYK and 16-bit images are converted; 16-bit keeps the upper byte.

    Raises:
        ImageError: missing, unreadable, not an image, truncated, or over ``max_pixels``.
    """
    with opened(path, max_pixels) as image:
        image.seek(0)
        image.load()
        return rgb_from_upright(upright(image))


def image_size(source: Source, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height that the file's header states (not turned upright); nothing is decoded.

    Raises:
        ImageError: as :func:`load_rgb`, as far as the header shows it.
    """
    with opened(source, max_pixels) as image:
        return image.size


class _Quiet:
    """While any thread is inside, Pillow warns of nothing: what matters here is an error.

    ``warnings.catch_warnings`` alone is not made for threads: whoever entered second and left last
    would bring the first one's filters back for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                for module in ("PIL", __name__):  # whom the warning is laid to
                    warnings.filterwarnings("ignore", module=rf"{re.escape(module)}(\.|$)")

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_quiet = _Quiet()
_one_webp = threading.RLock()


@contextlib.contextmanager
def opened(source: Source, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The image, its header read; whatever fails while it is open is an :class:`ImageError`."""
    require_pillow()
    from PIL import Image, UnidentifiedImageError

    Image.init()
    # A format that this build of Pillow does not know would end the search with a KeyError.
    formats = [name for name in FORMATS if name in Image.OPEN]
    path = name_of(source)
    try:
        with _quiet, _open_source(source) as file:
            head = file.read(_PPM_HEADER)
            file.seek(0)
            _check_ppm(path, head)
            with (
                _one_webp if _is_large_webp(head) else contextlib.nullcontext(),
                Image.open(file, formats=formats) as image,
            ):
                webp = image.format == "WEBP"
                most = min(max_pixels, MAX_WEBP_PIXELS) if webp else max_pixels
                _check_size(path, image.size, most)
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image in a supported format ({', '.join(formats)})"
        ) from error
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {_too_large(max_pixels)}") from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory to decode it") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{path}: cannot be read: {reason}") from error
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise ImageError(f"{path}: damaged image ({type(error).__name__}: {error})") from error


@contextlib.contextmanager
def _open_source(source: Source) -> Iterator[BinaryIO]:
    """The file, or its bytes read at once: decoders read in many small steps, which is slower."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    size = _check_file(source)
    with open(source, "rb") as file:
        yield file if size > _READ_AT_ONCE else io.BytesIO(file.read(size))


def _is_large_webp(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a WebP of more than :data:`LARGE` pixels.

    Its decoder takes most of its memory when it is opened, before Pillow tells its size. The sizes
    are where the container format and RFC 6386, 9.1 have them; one that is not told is large.
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return False
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (26, 28))
    else:
        return True
    return width * height > LARGE


def _check_ppm(path: str, head: bytes) -> None:
    """Refuse a PPM that hides its size behind long comments.

    Pillow reads these byte by byte: 100 MB of them take 40 s.
    """
    if head[:1] != b"P" or len(head) < _PPM_HEADER:
        return
    stated = re.sub(rb"#[^\r\n]*(?:[\r\n]|$)", b" ", head).split()
    if len(stated) < 3:
        raise ImageError(f"{path}: a PPM that states no size in its first {_PPM_HEADER} bytes")


def _check_file(path: str | os.PathLike[str]) -> int:
    """Its size in bytes."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        listable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(
            f"{path}: a folder, not an image file"
            + ("" if listable else ", and it may not be listed; check its permissions")
        )
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImageError(f"{path}: not a regular file; save the image to a file first")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; crop it first")
    return status.st_size


def _too_large(max_pixels: int) -> str:
    return f"more than {max_pixels / 1e6:.0f} megapixels; crop it first"


def _check_size(path: str | os.PathLike[str], size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{path}: {width}x{height} pixels is {_too_large(max_pixels)}")


def upright(image: Image.Image) -> Image.Image:
    """``image`` turned as its EXIF data says; itself where there is nothing to turn."""
    from PIL import ExifTags, ImageOps

    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def rgb_from_upright(image: Image.Image) -> Rgb:
    """Pixels uint8 ``[H, W, 3]`` of a decoded image in any mode."""
    if image.mode.startswith("I"):  # 16 bits, also where Pillow holds them in 32
        grey = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        grey = np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield image files: each file as given, each folder's images below it in sorted order.

    Links to files are followed, links to folders below a given folder are not. A folder that may
    not be listed is yielded itself, so that loading it tells what is wrong.
    """
    for given in paths:
        path = Path(given)
        if os.path.isdir(path):
            yield from walk(path, SUFFIXES)
        else:
            yield path
