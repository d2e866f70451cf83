"""Videos: which frames, what is broken, and files that mean harm."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qmdd.runtime import video
from qmdd.runtime.errors import ImageError
from qmdd.runtime.video import VIDEO_SUFFIXES, Broken, Decoded, Frame, is_video, read_frames

VideoFactory = Callable[..., Path]


def _frames(path: Path, every: int = 1) -> list[Frame]:
    return [found for found in read_frames(path, every) if isinstance(found, Frame)]


@pytest.mark.parametrize(
    ("codec", "name"),
    [("ffv1", "a.mkv"), ("libx264", "a.mp4"), ("mpeg4", "a.avi"), ("libvpx", "a.webm")],
)
def test_frames_are_decoded(
    make_video: VideoFactory, tmp_path: Path, codec: str, name: str
) -> None:
    levels = [10, 60, 110, 160, 210]
    path = make_video(tmp_path / name, levels, codec=codec, size=(64, 48))
    *frames, end = read_frames(path)
    assert end == Decoded(5)
    for index, (frame, level) in enumerate(zip(frames, levels, strict=True)):
        assert isinstance(frame, Frame)
        assert frame.number == index
        assert frame.rgb.shape == (48, 64, 3)
        assert frame.rgb.dtype == np.uint8
        assert abs(frame.rgb.astype(int) - level).max() <= 12


@pytest.mark.parametrize("every", [1, 3, 7, 8, 100])
def test_every_nth_frame(make_video: VideoFactory, tmp_path: Path, every: int) -> None:
    path = make_video(tmp_path / "a.mkv", range(0, 240, 30))
    assert [frame.number for frame in _frames(path, every)] == list(range(0, 8, every))


def test_a_variable_frame_rate_changes_the_seconds_not_the_choice(
    make_video: VideoFactory, tmp_path: Path
) -> None:
    millis = [0, 10, 500, 510, 2000, 2040]
    path = make_video(tmp_path / "a.mkv", range(6), millis=millis)
    found = [(frame.number, frame.seconds) for frame in _frames(path, 2)]
    assert found == [(0, 0.0), (2, 0.5), (4, 2.0)]


def test_broken_frames_are_passed_over_and_named(make_video: VideoFactory, tmp_path: Path) -> None:
    levels = [20, 60, 100, 140, 180, 220]
    path = make_video(tmp_path / "a.avi", levels, codec="mjpeg", broken=[2, 4])
    found = list(read_frames(path))
    assert [type(item) for item in found] == [Frame, Frame, Broken, Frame, Broken, Frame, Decoded]
    assert found[-1] == Decoded(4)
    assert [frame.number for frame in found if isinstance(frame, Frame)] == [0, 1, 2, 3]
    first = found[2]
    assert isinstance(first, Broken)
    assert first.reason.startswith("after frame 2 (")
    shown = [round(float(frame.rgb.mean())) for frame in found if isinstance(frame, Frame)]
    assert shown == pytest.approx([20, 60, 140, 220], abs=3)


@pytest.mark.parametrize(
    ("codec", "name"),
    [("ffv1", "a.mkv"), ("mjpeg", "a.avi"), ("mpeg1video", "a.mpg"), ("libvpx", "a.webm")],
)
def test_damage_anywhere_never_crashes(
    make_video: VideoFactory, tmp_path: Path, codec: str, name: str
) -> None:
    """Cut off at, or overwritten from, any of many places: some frames, or one clear error."""
    whole = make_video(tmp_path / name, range(0, 240, 24), codec=codec).read_bytes()
    path = tmp_path / f"bad{Path(name).suffix}"
    rng = np.random.default_rng(0)
    ends = 0
    for at in rng.integers(1, len(whole), 12):
        noise = rng.integers(0, 256, 60).astype(np.uint8).tobytes()
        for data in (whole[:at], whole[:at] + noise + whole[at + 60 :]):
            path.write_bytes(data)
            try:
                ends += isinstance(list(read_frames(path))[-1], Decoded)
            except ImageError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either way is right
    assert ends > 0


def test_a_header_that_lies_about_the_duration(make_video: VideoFactory, tmp_path: Path) -> None:
    """What it says is not believed: no seek, no allocation, no wait."""
    path = make_video(tmp_path / "a.mp4", [0, 50, 100], codec="mpeg4")
    data = bytearray(path.read_bytes())
    for box, field in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = data.index(box)
        struct.pack_into(">I", data, at + field, 0xFFFFFFFE)
    path.write_bytes(data)
    assert [frame.number for frame in _frames(path)] == [0, 1, 2]


def test_no_picture_in_it(audio_file: Path) -> None:
    with pytest.raises(ImageError, match=r"no video stream that can be decoded \(it holds audio\)"):
        list(read_frames(audio_file))


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(ImageError) as caught:
            list(read_frames(path))
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    empty, text, pipe = (tmp_path / name for name in ("empty.mp4", "text.mp4", "pipe.mp4"))
    empty.touch()
    text.write_text("words " * 1000)
    os.mkfifo(pipe)
    assert "an empty file" in refused(empty)
    assert "not a video that can be read" in refused(text)
    assert "not a regular file" in refused(pipe)
    assert "no such file" in refused(tmp_path / "none.mp4")
    assert "not a regular file" in refused(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{0}'\n",
    ],
)
def test_playlists_open_no_other_file(make_video: VideoFactory, tmp_path: Path, text: str) -> None:
    secret = make_video(tmp_path / "secret.mkv", [1, 2, 3])
    path = tmp_path / "list.mp4"
    path.write_text(text.format(secret))
    with pytest.raises(ImageError, match="not a video that can be read"):
        list(read_frames(path))


def test_frames_over_the_limit_are_refused(make_video: VideoFactory, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", [0], size=(64, 64))
    assert len(list(read_frames(path, max_pixels=64 * 64))) == 2
    with pytest.raises(ImageError, match="cannot be read, or is more than 0 megapixels"):
        list(read_frames(path, max_pixels=64 * 64 - 1))


def test_frames_that_become_too_large_are_not_decoded(
    make_video: VideoFactory, tmp_path: Path
) -> None:
    """One film behind the other; the first one's size is what a header would say."""
    parts = [
        make_video(tmp_path / f"{side}.mpg", [100] * 4, codec="mpeg1video", size=(side, side))
        for side in (64, 256)
    ]
    path = tmp_path / "both.mpg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    sizes = {frame.rgb.shape for frame in _frames(path)}
    assert sizes == {(64, 64, 3), (256, 256, 3)}
    found = list(read_frames(path, max_pixels=256 * 256 - 1))
    assert {item.rgb.shape for item in found if isinstance(item, Frame)} == {(64, 64, 3)}
    assert any(isinstance(item, Broken) for item in found)


def test_frames_are_turned_upright() -> None:
    """By the angle that the file states, counter-clockwise."""

    class Stub:
        rotation = 90
        pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)

        def reformat(self, _frame: object, format: str) -> Stub:  # noqa: A002 - PyAV's name
            assert format == "rgb24"
            return self

        def to_ndarray(self) -> np.ndarray:
            return self.pixels

    turned = video._rgb(Stub(), Stub())
    assert turned.shape == (3, 2, 3)
    assert np.array_equal(turned[-1, 0], Stub.pixels[0, 0])  # the top left comes to the bottom left


def test_what_a_video_is() -> None:
    assert is_video(Path("a/B.MP4"))
    assert not is_video(Path("a.gif"))
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in VIDEO_SUFFIXES)


def test_pyav_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ImageError, match=r"PyAV is not installed; run: pip install 'qmdd\[video\]'"
    ):
        list(read_frames(tmp_path / "a.mp4"))
