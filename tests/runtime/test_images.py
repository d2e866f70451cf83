"""Decoding: every kind of good image to the right pixels, every bad one to one ImageError."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from qmdd.runtime import images
from qmdd.runtime.errors import ImageError
from qmdd.runtime.images import FORMATS, find_images, image_size, load_rgb

U8 = npt.NDArray[np.uint8]
Image.init()  # registers every format
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
#: Stored pixels that each EXIF orientation turns upright, by numpy alone.
STORED: dict[int, Callable[[U8], U8]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def _noise(height: int, width: int, channels: int = 3, seed: int = 0) -> U8:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, whatever its header says."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
@pytest.mark.parametrize("size", [(32, 48), (1, 1), (1, 97), (97, 1)])
def test_lossless_formats_give_the_very_pixels(
    tmp_path: Path, form: str, size: tuple[int, int]
) -> None:
    pixels = _noise(*size)
    options = {"lossless": True} if form == "WEBP" else {}
    path = _save(tmp_path / "image", _encoded(Image.fromarray(pixels), form, **options))
    found = load_rgb(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)
    found[0, 0] = 7  # the caller owns it


@pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow has no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    flat = np.full((32, 32, 3), 200, dtype=np.uint8)
    path = _save(tmp_path / "image.avif", _encoded(Image.fromarray(flat), "AVIF", quality=100))
    np.testing.assert_allclose(load_rgb(path), flat, atol=2)  # levels: AVIF is lossy


def test_a_pillow_without_avif_reads_and_refuses_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    path = _save(tmp_path / "image.png", _encoded(Image.fromarray(_noise(8, 8)), "PNG"))
    assert load_rgb(path).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="not an image in a supported format"):
        load_rgb(_save(tmp_path / "text.png", b"these are words"))


def test_greyscale_is_repeated(tmp_path: Path) -> None:
    grey = _noise(8, 9, 1)[..., 0]
    path = _save(tmp_path / "grey.png", _encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(load_rgb(path), grey[..., None].repeat(3, axis=2))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = np.eye(8, dtype=bool)
    path = _save(tmp_path / "bits.png", _encoded(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(load_rgb(path)[..., 0], np.eye(8, dtype=np.uint8) * 255)


@pytest.mark.parametrize("transparent", [False, True])
def test_palette_gives_its_colours_transparent_or_not(tmp_path: Path, transparent: bool) -> None:
    index = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    image = Image.fromarray(index).convert("L")
    image.putpalette([*RED, *GREEN, *BLUE])
    options = {"transparency": 1} if transparent else {}
    path = _save(tmp_path / "palette.png", _encoded(image, "PNG", **options))
    np.testing.assert_array_equal(load_rgb(path), np.array([RED, GREEN, BLUE], np.uint8)[index])


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_alpha_is_dropped_not_blended(tmp_path: Path, form: str) -> None:
    """Blending would invent pixels that no camera and no generator made."""
    rgba = _noise(8, 8, 4)
    rgba[0, 0] = (10, 20, 30, 0)
    path = _save(tmp_path / "rgba", _encoded(Image.fromarray(rgba), form))
    np.testing.assert_array_equal(load_rgb(path), rgba[..., :3])


def test_grey_with_alpha(tmp_path: Path) -> None:
    pair = _noise(8, 8, 2)
    path = _save(tmp_path / "la.png", _encoded(Image.fromarray(pair), "PNG"))
    np.testing.assert_array_equal(load_rgb(path), pair[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PGM"])
def test_16_bit_grey_keeps_the_upper_byte(tmp_path: Path, form: str) -> None:
    wide = np.array([[0, 255, 256, 257], [0x1234, 0x7FFF, 0x8000, 0xFFFF]], dtype=np.uint16)
    by_hand = b"P5 4 2 65535\n" + wide.astype(">u2").tobytes()
    data = by_hand if form == "PGM" else _encoded(Image.fromarray(wide), form)
    path = _save(tmp_path / "wide", data)
    expected = (wide >> 8).astype(np.uint8)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(load_rgb(path), expected)


def test_16_bit_big_endian_tiff(tmp_path: Path) -> None:
    wide = np.array([[0x1234, 0xFFFF]], dtype=np.uint16)
    image = Image.frombytes("I;16B", (2, 1), wide.astype(">u2").tobytes())
    path = _save(tmp_path / "wide.tif", _encoded(image, "TIFF"))
    assert load_rgb(path)[0, :, 0].tolist() == [0x12, 0xFF]


def test_16_bit_rgb_png_keeps_the_upper_byte(tmp_path: Path) -> None:
    wide = np.array([[[0x1234, 0x00FF, 0xFF00], [0x8000, 0x7FFF, 0xFFFF]]], dtype=">u2")
    path = _save(tmp_path / "wide.png", _png(2, 1, 16, 2, b"\0" + wide.tobytes()))
    assert load_rgb(path).tolist() == [[[0x12, 0x00, 0xFF], [0x80, 0x7F, 0xFF]]]


def test_float_tiff_is_clipped(tmp_path: Path) -> None:
    values = np.array([[-5.0, 0.0, 99.9, 300.0], [np.nan, np.inf, -np.inf, 255.0]], np.float32)
    path = _save(tmp_path / "float.tif", _encoded(Image.fromarray(values), "TIFF"))
    assert load_rgb(path)[..., 0].tolist() == [[0, 0, 99, 255], [0, 255, 0, 255]]


@pytest.mark.parametrize("orientation", sorted(STORED))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_comes_out_upright(
    tmp_path: Path, form: str, orientation: int
) -> None:
    """Flat 8x8 blocks, without chroma subsampling, mean the same to JPEG however it is turned."""
    upright = _noise(3, 5).repeat(8, axis=0).repeat(8, axis=1)
    exact: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    options = exact.get(form, {})
    plain = load_rgb(_save(tmp_path / "0", _encoded(Image.fromarray(upright), form, **options)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    turned = _save(tmp_path / "1", _encoded(stored, form, exif=exif, **options))
    np.testing.assert_array_equal(load_rgb(turned), plain)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0junk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_damaged_exif_does_not_cost_the_pixels(tmp_path: Path, exif: bytes) -> None:
    image = Image.fromarray(_noise(16, 24))
    path = _save(tmp_path / "image.jpg", _encoded(image, "JPEG", exif=exif))
    assert load_rgb(path).shape == (16, 24, 3)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    inks = np.zeros((16, 32, 4), dtype=np.uint8)
    inks[:, 16:] = (0, 255, 255, 0)
    path = _save(
        tmp_path / "cmyk.jpg", _encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    )
    found = load_rgb(path)
    np.testing.assert_array_equal(found[:, :8], 255)
    np.testing.assert_allclose(found[:, 24:], np.broadcast_to(RED, (16, 8, 3)), atol=2)  # levels


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(tmp_path: Path, form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = _encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    path = _save(tmp_path / "moving", data)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 3
    np.testing.assert_array_equal(load_rgb(path), np.broadcast_to(RED, (16, 16, 3)))


def test_photo_of_a_camera_with_a_preview_behind_it(tmp_path: Path) -> None:
    """Phones write several JPEGs into one .jpg (MPO); the first is the photo."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    data = _encoded(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=100)
    found = load_rgb(_save(tmp_path / "photo.jpg", data))
    np.testing.assert_allclose(found, np.broadcast_to(RED, (16, 16, 3)), atol=2)  # levels


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"these are words", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    path = _save(tmp_path / "picture.png", data)
    with pytest.raises(ImageError, match=message) as caught:
        load_rgb(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, form: str, share: float) -> None:
    data = _encoded(Image.fromarray(_noise(64, 64)), form)
    path = _save(tmp_path / "image", data[: int(len(data) * share)])
    with pytest.raises(ImageError) as caught:
        load_rgb(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        load_rgb(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="a folder, not an image file"):
        load_rgb(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        load_rgb(_save(tmp_path / "file", b"") / "below.png")
    with pytest.raises(ImageError):
        load_rgb("a\0b.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ImageError, match="cannot be read"):
        load_rgb(tmp_path / "loop.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        load_rgb(tmp_path / "pipe.png")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything"
)
def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "image.png", _encoded(Image.fromarray(_noise(8, 8)), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        load_rgb(path)


def test_files_beyond_the_bound_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _save(tmp_path / "image.png", _encoded(Image.fromarray(_noise(8, 8)), "PNG"))
    monkeypatch.setattr(images, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(ImageError, match="larger than"):
        load_rgb(path)


@pytest.mark.parametrize("size", [(60000, 60000), (9000, 9000), (2**31 - 1, 1), (1, 2**31 - 1)])
def test_decompression_bombs_are_refused_before_a_pixel_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """60000x60000 is over Pillow's own bound, 9000x9000 over ours only."""

    def load(*_: object) -> None:
        pytest.fail("decoding began")

    path = _save(tmp_path / "bomb.png", _png(*size, 8, 2, bytes(1 << 16)))
    assert path.stat().st_size < 1000
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    start = time.perf_counter()
    with pytest.raises(ImageError, match="megapixels"):
        load_rgb(path)
    assert time.perf_counter() - start < 1


def test_the_bound_on_pixels_is_exact(tmp_path: Path) -> None:
    path = _save(tmp_path / "image.png", _encoded(Image.fromarray(_noise(8, 8)), "PNG"))
    assert load_rgb(path, max_pixels=64).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="8x8 pixels"):
        load_rgb(path, max_pixels=63)


def test_a_missing_pillow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImageError, match=r"pip install 'qmdd\[runtime\]'"):
        load_rgb(tmp_path / "image.png")


def _seed_files() -> dict[str, bytes]:
    image = Image.fromarray(_noise(24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        form: _encoded(image, form, **({"exif": exif} if form in ("JPEG", "PNG") else {}))
        for form in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
    }


SEEDS = _seed_files()


def _reads_or_refuses(path: Path) -> None:
    try:
        found = load_rgb(path, max_pixels=1 << 20)
    except ImageError:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3


@pytest.mark.parametrize("form", sorted(SEEDS))
def test_random_changes_give_pixels_or_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, form: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "image"
    original = SEEDS[form]
    places = st.integers(0, len(original) - 1) | st.integers(0, min(160, len(original)) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)

    @settings(max_examples=120)
    @given(changes, st.integers(0, len(original)), st.binary(max_size=8))
    def check(changed: list[tuple[int, int]], cut: int, tail: bytes) -> None:
        data = bytearray(original)
        for place, value in changed:
            data[place] = value
        _reads_or_refuses(_save(path, bytes(data if cut % 3 else data[:cut]) + tail))

    check()


def test_random_changes_to_png_chunks_with_valid_checksums(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Past the checksums, which catch nearly every blind change."""
    path = tmp_path_factory.mktemp("fuzz") / "image"
    kinds = st.sampled_from(
        [b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"iCCP", b"zTXt", b"eXIf", b"acTL"]
    )
    chunks = st.lists(st.tuples(kinds, st.binary(max_size=24)), max_size=5)

    @settings(max_examples=150)
    @given(st.binary(min_size=13, max_size=13) | st.just(bytes([0, 0, 0, 4] * 2 + [8, 2, 0, 0, 0])))
    def header(data: bytes) -> None:
        _reads_or_refuses(_save(path, b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", data)))

    @settings(max_examples=150)
    @given(chunks, st.binary(max_size=64))
    def body(extra: list[tuple[bytes, bytes]], rows: bytes) -> None:
        whole = _png(4, 4, 8, 2, rows)
        middle = b"".join(_chunk(*chunk) for chunk in extra)
        _reads_or_refuses(_save(path, whole[:33] + middle + whole[33:]))

    header()
    body()


def test_every_listed_format_is_one_of_pillows() -> None:
    assert set(FORMATS) - {"AVIF"} <= set(Image.OPEN)


def test_folders_are_searched_in_sorted_order(tmp_path: Path) -> None:
    names = ["b.PNG", "a.jpg", ".hidden.webp", "sub/z.gif", "sub/.deep/y.tiff", "also/x.bmp"]
    for name in [*names, "notes.txt", "sub/png", "sub/model.onnx", "archive.png.zip"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == [
        ".hidden.webp",
        "a.jpg",
        "b.PNG",
        "also/x.bmp",
        "sub/z.gif",
        "sub/.deep/y.tiff",
    ]


def test_files_are_given_as_they_are_in_the_callers_order(tmp_path: Path) -> None:
    given_paths: list[str | Path] = [
        tmp_path / "z.txt",
        str(tmp_path / "absent.png"),
        tmp_path / "a.png",
    ]
    assert list(find_images(given_paths)) == [Path(path) for path in given_paths]
    assert list(find_images([])) == []


def test_links_that_loop_end(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "sub" / "a.png").write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["self.png", "sub/a.png"]
    assert list(find_images([tmp_path / "self.png"])) == [tmp_path / "self.png"]


def test_a_link_to_a_folder_is_followed_when_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(find_images([tmp_path / "link"])) == [tmp_path / "link" / "a.png"]


def test_a_folder_that_may_not_be_listed_is_yielded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped silently, its images would look as if they had been checked."""
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(find_images([tmp_path])) == [tmp_path / "a.png", tmp_path / "locked"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_the_size_is_read_without_decoding(tmp_path: Path, form: str) -> None:
    """Of a whole file and, where the header tells it, of one whose pixels are cut off."""
    path = tmp_path / "a"
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, form)
    assert image_size(path) == (50, 70)
    if form in ("JPEG", "PNG", "BMP", "PPM"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert image_size(path) == (50, 70)
        with pytest.raises(ImageError, match="cannot be read"):
            load_rgb(path)


def test_the_size_is_refused_as_the_image_is(tmp_path: Path) -> None:
    """The same errors as decoding, as far as the header shows them."""
    path = tmp_path / "a.png"
    with pytest.raises(ImageError, match=r"a\.png: no such file"):
        image_size(path)
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png: not an image in a supported format"):
        image_size(path)
    Image.new("RGB", (30, 20)).save(path)
    with pytest.raises(ImageError, match="30x20 pixels is more than"):
        image_size(path, max_pixels=599)


def test_a_ppm_that_hides_its_size_is_refused_soon(tmp_path: Path) -> None:
    """Pillow reads comments byte by byte: what stands before the size is bounded."""
    pixels = bytes(range(12)) * 512
    honest = b"P6\n# a comment\n64 32\n# another\n255\n" + pixels
    (tmp_path / "a.ppm").write_bytes(honest)
    assert load_rgb(tmp_path / "a.ppm").shape == (32, 64, 3)
    for hidden in (b"P6 #" + b"x" * 5000, b"P6\n64\n#" + b"y" * 5000, b"P5" + b" " * 5000):
        (tmp_path / "b.ppm").write_bytes(hidden + b"\n" + honest[3:])
        with pytest.raises(ImageError, match="states no size in its first 4096 bytes"):
            load_rgb(tmp_path / "b.ppm")


def test_a_webp_may_have_fewer_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder holds the image four times."""
    monkeypatch.setattr(images, "MAX_WEBP_PIXELS", 64 * 64)
    for side, form in ((64, "webp"), (65, "png")):
        Image.new("RGB", (side, side)).save(tmp_path / f"a.{form}")
        assert load_rgb(tmp_path / f"a.{form}").shape == (side, side, 3)
    Image.new("RGB", (65, 64)).save(tmp_path / "b.webp")
    with pytest.raises(ImageError, match="65x64 pixels is more than"):
        load_rgb(tmp_path / "b.webp")


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(64, 64), (65, 64), (1, 4097), (4097, 1), (1, 4096)])
def test_large_webps_are_known_before_they_are_opened(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], mode: str, lossless: bool
) -> None:
    """In each of the three ways in which a file states its size."""
    monkeypatch.setattr(images, "LARGE", 64 * 64)
    noise = Image.effect_noise(size, 90).convert(mode)
    if mode == "RGBA":
        noise.putalpha(Image.effect_noise(size, 90))
    for more in ({}, {"exif": b"Exif\0\0II*\0"}):  # with metadata: the extended form
        data = io.BytesIO()
        noise.save(data, "WEBP", lossless=lossless, **more)
        large = images._is_large_webp(data.getvalue()[:4096])
        assert large == (size[0] * size[1] > 64 * 64), data.getvalue()[12:16]


def test_what_is_no_webp_is_no_large_one() -> None:
    for head in (b"", b"RIFF", b"RIFF....WAVEVP8 ", b"\x89PNG\r\n\x1a\n" + b"x" * 40):
        assert not images._is_large_webp(head)
    assert images._is_large_webp(b"RIFF....WEBPVP9 ")


def test_one_large_webp_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its memory when it is opened; of other formats several are open at once."""
    monkeypatch.setattr(images, "LARGE", 64 * 64 - 1)
    for form, side, waits in (("webp", 64, True), ("webp", 63, False), ("png", 64, False)):
        path = tmp_path / f"{side}.{form}"
        Image.new("RGB", (side, side)).save(path)
        inside = threading.Event()

        def second(path: Path = path, inside: threading.Event = inside) -> None:
            with images.opened(path):
                inside.set()

        other = threading.Thread(target=second)
        with images.opened(path):
            other.start()
            assert inside.wait(0.3 if waits else 10) is not waits
        other.join(10)
        assert inside.is_set()
