"""Images that are small as files and large in memory, and images of every extreme size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .case import Case

_TOO_SMALL, _TOO_LARGE = "too small", "megapixels"
_PNG = b"\x89PNG\r\n\x1a\n"
#: The largest square that is not refused.
_ALLOWED = 8192


def image_cases(bundle: Path) -> Iterator[Case]:
    """Every case, scored by ``bundle``."""

    def case(name: str, make: Callable[[Path], None], says: str, *ends: int) -> Case:
        command = ("detect", str(bundle), "{}")
        return Case(name, make, command, ends or ((1,) if says else (0,)), says)

    for width, height in ((1, 1), (1, 20_000), (20_000, 1), (31, 31), (31, 20_000)):
        yield case(f"{width}x{height}.png", _saved("png", width, height), _TOO_SMALL)
    for width, height in ((32, 32), (33, 33), (2_000_000, 32), (32, 2_000_000), (20_000, 3_000)):
        yield case(f"{width}x{height}.png", _saved("png", width, height), "")
    for form in ("png", "jpg", "bmp", "gif", "tif", "ppm", "avif"):
        yield case(f"{_ALLOWED}x{_ALLOWED}.{form}", _saved(form, _ALLOWED, _ALLOWED), "")
    for form in ("jpg", "png", "avif"):
        make = _saved(form, _ALLOWED, _ALLOWED)
        yield case(f"four of {_ALLOWED}x{_ALLOWED}.{form}", _four(make), "")
    for words, more in (
        ("progressive", {"form": "jpg", "progressive": True}),
        ("LZW", {"form": "tif", "compression": "tiff_lzw"}),
        ("deflate", {"form": "tif", "compression": "tiff_adobe_deflate"}),
        ("RGBA", {"form": "png", "mode": "RGBA"}),
        ("CMYK", {"form": "jpg", "mode": "CMYK"}),
        ("floats", {"form": "tif", "mode": "F"}),
        ("16 bits", {"form": "png", "mode": "I;16"}),
        ("turned by EXIF", {"form": "jpg", "orientation": 6}),
    ):
        make = _saved(width=_ALLOWED, height=_ALLOWED, **more)
        yield case(f"{_ALLOWED}x{_ALLOWED}, {words}", make, "")
    for lossless in (False, True):
        kind = f"{'lossless' if lossless else 'lossy'}.webp"
        make = _saved("webp", 8192, 5120, lossless=lossless)
        yield case(f"8192x5120, {kind}", make, "")
        yield case(f"four of 8192x5120, {kind}", _four(make), "")
        for side in (_ALLOWED, 16_383):
            make = _saved("webp", side, side, lossless=lossless)
            yield case(f"{side}x{side}, {kind}", make, _TOO_LARGE)
    yield case("20000x20000.png, one bit", _raw_png(20_000, 20_000), _TOO_LARGE)
    yield case("20000x20000.png, RGB", _raw_png(20_000, 20_000, depth=8, kind=2), _TOO_LARGE)
    yield case("2^31x2^31.png", _raw_png((1 << 31) - 1, (1 << 31) - 1, rows=1), _TOO_LARGE)
    yield case("interlaced 8192x8192.png", _raw_png(_ALLOWED, _ALLOWED, interlaced=1), "", 0, 1)
    for chunk in (b"zTXt", b"iTXt", b"iCCP"):
        yield case(f"PNG with 1 GB of {chunk.decode()}", _png_bomb(chunk), "", 0, 1)
    yield case("PNG with 100,000 chunks", _png_of_chunks(100_000), "", 0, 1)
    yield case("a GIF frame larger than its canvas", _gif(32, 32, 65_535, 65_535), "", 0, 1)
    yield case("a GIF of 65535x65535", _gif(65_535, 65_535, 65_535, 65_535), _TOO_LARGE)
    yield case("a GIF of 20,000 frames", _gif(64, 64, 64, 64, frames=20_000), "", 0, 1)
    yield case("a TIFF of a strip of 4 GB", _tiff(64, 64, strip=0xFFFF_FFFF), "", 0, 1)
    yield case("a TIFF of 10^6 directory entries", _tiff(64, 64, entries=1_000_000), "", 0, 1)
    yield case("a TIFF whose directories are a ring", _tiff(64, 64, ring=True), "", 0, 1)
    huge = _bytes("a.ppm", b"P6 1000000000 1000000000 255\n")
    yield case("a PPM that states 10^9x10^9", huge, _TOO_LARGE)
    long = _bytes("a.ppm", b"P6 " + b"#" * 100_000_000)
    yield case("a PPM header of 100 MB", long, "states no size")
    yield case("a BMP that states 2^30x2^30", _bmp(1 << 30, 1 << 30), _TOO_LARGE)
    yield case("a JPEG that states 65535x65535", _jpeg_header(65_535, 65_535), _TOO_LARGE)
    yield case("a JPEG with 64 MB of EXIF", _jpeg_exif(1000), "", 0, 1)
    yield case("1 GB of zeros", _sparse("a.png", 1 << 30), "not an image")
    yield case("1 TB of zeros", _sparse("a.jpg", 1 << 40), "larger than")


def _four(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same file under four names: as many as are decoded at a time, and more."""

    def made(folder: Path) -> None:
        make(folder)
        (path,) = folder.iterdir()
        for number in range(3):
            (folder / f"{number}{path.suffix}").hardlink_to(path)

    return made


def _saved(form: str, width: int, height: int, **more: Any) -> Callable[[Path], None]:
    """A grey image of that size, by Pillow."""

    def make(folder: Path) -> None:
        from PIL import Image

        options = dict(more)
        mode = options.pop("mode", "1" if form == "png" and width * height > 1 << 24 else "RGB")
        orientation = options.pop("orientation", None)
        image = Image.new(mode, (width, height))
        if orientation:
            exif = Image.Exif()
            exif[0x0112] = orientation
            options["exif"] = exif
        if form == "avif":
            options["speed"] = 10
        image.save(folder / f"image.{form}", **options)

    return make


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _zeros(count: int) -> bytes:
    """``count`` zero bytes, deflated."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    parts.append(packer.compress(bytes(count & ((1 << 20) - 1))))
    return b"".join((*parts, packer.flush()))


def _header(width: int, height: int, depth: int = 8, kind: int = 2, interlaced: int = 0) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))


def _raw_png(
    width: int, height: int, depth: int = 1, kind: int = 0, interlaced: int = 0, rows: int = 0
) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        bits = width * depth * (3 if kind == 2 else 1)
        data = _zeros(((bits + 7) // 8 + 1) * height) if not rows else b""
        (folder / "image.png").write_bytes(
            _PNG
            + _header(width, height, depth, kind, interlaced)
            + _chunk(b"IDAT", data)
            + _chunk(b"IEND", b"")
        )

    return make


def _png_bomb(kind: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        packed = _zeros(1 << 30)
        before = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind]
        (folder / "image.png").write_bytes(
            _PNG
            + _header(64, 64)
            + _chunk(kind, before + packed)
            + _chunk(b"IDAT", _zeros(64 * 193))
            + _chunk(b"IEND", b"")
        )

    return make


def _png_of_chunks(count: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        text = b"".join(_chunk(b"tEXt", b"k%d\0v" % i + b"v" * 900) for i in range(count))
        (folder / "image.png").write_bytes(
            _PNG + _header(64, 64) + text + _chunk(b"IDAT", _zeros(64 * 193)) + _chunk(b"IEND", b"")
        )

    return make


def _gif(
    width: int, height: int, frame_width: int, frame_height: int, frames: int = 1
) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        # A picture of one code: clear, then end.
        frame = (
            b"," + struct.pack("<HHHHB", 0, 0, frame_width, frame_height, 0) + b"\x02\x02L\x01\0"
        )
        (folder / "image.gif").write_bytes(head + frame * frames + b";")

    return make


def _tiff(
    width: int, height: int, strip: int = 0, entries: int = 0, ring: bool = False
) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        tags = [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, 8),
            (278, 4, 1, height),
            (279, 4, 1, strip or width * height),
        ]
        tags += [(65_000, 4, 1, 0)] * min(entries, 65_000)
        # The number of entries has 16 bits: more of them is what the last one says it holds.
        if entries > 65_000:
            tags[-1] = (65_000, 4, entries, 8)
        data = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags))
        data += b"".join(struct.pack("<HHII", *tag) for tag in tags)
        data += struct.pack("<I", 8 if ring else 0)
        (folder / "image.tif").write_bytes(data + bytes(width * height))

    return make


def _bmp(width: int, height: int) -> Callable[[Path], None]:
    head = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    return _bytes("a.bmp", head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6))


def _jpeg_header(width: int, height: int) -> Callable[[Path], None]:
    frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\x01\x11\0\x02\x11\0\x03\x11\0"
    return _bytes("a.jpg", b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9")


def _jpeg_exif(segments: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        _saved("jpg", 64, 64)(folder)
        path = folder / "image.jpg"
        data = path.read_bytes()
        segment = b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + bytes(65_527)
        path.write_bytes(data[:2] + segment * segments + data[2:])

    return make


def _bytes(name: str, data: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return make


def _sparse(name: str, size: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with (folder / name).open("wb") as stream:
            stream.truncate(size)

    return make
