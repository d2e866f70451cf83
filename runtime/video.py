"""Video files to raw RGB frames, one after the other, by PyAV (FFmpeg).

Files are hostile here too: only regular files are opened, only with the readers of listed
containers, which may open no other file or address; frames over the pixel limit are not decoded;
nothing that a header states (duration, number of frames) is believed.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ImageError, not_installed
from .images import MAX_PIXELS

U8 = npt.NDArray[np.uint8]

#: Files with these suffixes are videos.
VIDEO_SUFFIXES = frozenset(
    {
        ".3gp",
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".ogv",
        ".webm",
        ".wmv",
    }
)
#: FFmpeg's readers that may be tried. Playlists, which name other files, are not among them.
_CONTAINERS = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,flv,live_flv,asf,mpeg,mpegts,ogg"


class Frame(NamedTuple):
    """A decoded frame.

    Attributes:
        number: its place among the frames that could be decoded, from 0.
        seconds: its time stamp, if it has one.
        rgb: uint8 ``[H, W, 3]``, upright.
    """

    number: int
    seconds: float | None
    rgb: U8


class Broken(NamedTuple):
    """Something in the stream that could not be decoded; ``reason`` says what and where."""

    reason: str


class Decoded(NamedTuple):
    """The end of the stream: how many frames could be decoded."""

    frames: int


def is_video(path: Path) -> bool:
    """Whether its name ends as a video's does."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def require_av() -> Any:
    """The package ``av``; :class:`ImageError` says what to install where it is missing."""
    try:
        return import_module("av")
    except ImportError as error:
        raise ImageError(not_installed("PyAV", "video", error=error)) from error


def read_frames(
    path: str | os.PathLike[str], every: int = 1, max_pixels: int = MAX_PIXELS
) -> Iterator[Frame | Broken | Decoded]:
    """Every ``every``-th frame that can be decoded, each made when it is asked for.

    Frames are counted as they are decoded, whatever their time stamps: a variable frame rate
    changes the seconds, not the choice. What is broken is passed over, and yielded as such.

    Raises:
        ImageError: no video that can be read (it may be raised while iterating); names the file.
    """
    av = require_av()
    try:
        _check_file(path)
        # By an open file, not by name: FFmpeg would take some names for addresses.
        with (
            open(path, "rb") as file,
            av.open(
                file,
                metadata_errors="replace",
                # For the decoders too: the first frames are decoded when a file is opened.
                options={
                    "format_whitelist": _CONTAINERS,
                    "protocol_whitelist": "none",
                    "max_pixels": str(max_pixels),
                },
            ) as container,
        ):
            stream = _video_stream(path, container)
            codec = stream.codec_context
            if not 0 < codec.width * codec.height <= max_pixels:
                raise ImageError(
                    f"{path}: the size of its frames cannot be read, or is more than "
                    f"{max_pixels / 1e6:.0f} megapixels; crop them first"
                )
            codec.options = {"max_pixels": str(max_pixels)}  # later frames may be larger
            codec.thread_count = 1  # the model computes on the other cores
            yield from _decoded(av, container, stream, every)
    except ImageError:
        raise
    except av.FFmpegError as error:
        raise ImageError(f"{path}: not a video that can be read ({_said(error)})") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory to decode it") from error
    except Exception as error:  # what a damaged file makes a binding raise is not listed
        raise ImageError(f"{path}: damaged video ({type(error).__name__}: {error})") from error


def _check_file(path: str | os.PathLike[str]) -> None:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImageError(f"{path}: not a regular file; save the video to a file first")
    if not status.st_size:
        raise ImageError(f"{path}: an empty file, no video")


def _video_stream(path: str | os.PathLike[str], container: Any) -> Any:
    """The first stream of moving pictures (the cover of a piece of music is none)."""
    cover = import_module("av.stream").Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover and stream.codec_context is not None:
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise ImageError(f"{path}: no video stream that can be decoded (it holds {kinds})")


def _decoded(
    av: Any, container: Any, stream: Any, every: int
) -> Iterator[Frame | Broken | Decoded]:
    count = 0
    to_rgb = import_module("av.video.reformatter").VideoReformatter()
    packets = container.demux(stream)
    packet: Any = True
    while packet is not None:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:  # damaged beyond finding the next packet
            yield Broken(f"nothing can be read after frame {count:,} ({_said(error)})")
            packet = None
        try:
            # At the end (None) the frames that the decoder still holds.
            frames = stream.decode(packet)
        except av.EOFError:
            frames = []
        except av.FFmpegError as error:
            yield Broken(f"after frame {count:,} ({_said(error)})")
            frames = []
        for frame in frames:
            if frame.is_corrupt:
                yield Broken(f"after frame {count:,} (damaged)")
                continue
            if count % every == 0:
                yield Frame(count, _seconds(frame), _rgb(to_rgb, frame))
            count += 1
    yield Decoded(count)


def _seconds(frame: Any) -> float | None:
    time = frame.time
    return float(time) if time is not None and math.isfinite(time) else None


def _rgb(reformatter: Any, frame: Any) -> U8:
    rgb: U8 = reformatter.reformat(frame, format="rgb24").to_ndarray()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise, as numpy's
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip()
