"""The short way from a file to the model's pixels gives the pixels of the long one."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qmdd.runtime import pixels
from qmdd.runtime.errors import ImageError
from qmdd.runtime.images import load_rgb
from qmdd.runtime.pixels import load_prepared, prepared
from qmdd.runtime.preprocess import prepare

SIDES = {"min_side": 8, "multiple": 4, "max_side": 32}


def _long_way(path: Path) -> np.ndarray:
    return prepare(load_rgb(path), **SIDES)


def _image(mode: str, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(3)
    height, width = size[1], size[0]
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 1 << 16, (height, width)).astype(np.uint16))
    if mode == "F":
        return Image.fromarray(rng.normal(100, 200, (height, width)).astype(np.float32))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("size", [(32, 32), (33, 19), (8, 90), (101, 77)])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "jpg"),
        ("CMYK", "jpg"),
        ("L", "jpg"),
        ("RGB", "png"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("1", "png"),
        ("I;16", "png"),
        ("P", "gif"),
        ("F", "tiff"),
        ("RGB", "webp"),
        ("RGB", "bmp"),
    ],
)
def test_same_pixels(tmp_path: Path, mode: str, suffix: str, size: tuple[int, int]) -> None:
    path = tmp_path / f"a.{suffix}"
    _image(mode, size).save(path)
    found = load_prepared(path, SIDES)
    assert np.array_equal(found, _long_way(path))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    with Image.open(path) as image:
        assert np.array_equal(prepared(image, SIDES), found)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    _image("RGB", (50, 21)).save(path, exif=exif)
    assert np.array_equal(load_prepared(path, SIDES), _long_way(path))


def test_errors_name_the_file(tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    Image.new("RGB", (7, 90)).save(small)
    with pytest.raises(ImageError, match=r"small\.png: 7x90 pixels is too small"):
        load_prepared(small, SIDES)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        load_prepared(tmp_path / "none.png", SIDES)


def test_large_images_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(path)
    monkeypatch.setattr(pixels, "LARGE", 64 * 64 - 1)
    inside, most, lock = 0, 0, threading.Lock()
    real = pixels.prepared

    def watched(image: Image.Image, sides: dict[str, int]) -> np.ndarray:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        found = real(image, sides)
        with lock:
            inside -= 1
        return found

    monkeypatch.setattr(pixels, "prepared", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load_prepared(path, SIDES), range(40)))
    assert most == 1


def test_threads_leave_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    _image("RGB", (40, 40)).save(path)
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: load_prepared(path, SIDES), range(60)))
        assert list(warnings.filters) == before


def test_pillows_warnings_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they would be errors: this size is above Pillow's own limit, not above ours."""
    path = tmp_path / "a.png"
    _image("RGB", (40, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(path).close()
    assert load_prepared(path, SIDES).shape == (3, 32, 32)


def test_a_large_image_is_given_back_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels are freed, and the memory returned, while no other may be decoded."""
    seen: list[bool] = []
    monkeypatch.setattr(pixels, "LARGE", 64 * 64 - 1)
    monkeypatch.setattr(pixels, "give_back", lambda: seen.append(pixels._one_large_image.locked()))
    for side in (64, 63):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
        load_prepared(tmp_path / f"{side}.png", SIDES)
    assert seen == [True]
