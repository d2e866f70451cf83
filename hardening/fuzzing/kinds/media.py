"""Images and videos, as qmdd detect decodes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from ..kind import Kind, NotRight, Reader
from ..mutators.media import mutate_media
from ..workshop import Workshop

_SIDES = {"min_side": 32, "multiple": 2, "max_side": 4096}
_PICTURES = (
    *(("JPEG", "RGB"), ("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "P")),
    *(("PNG", "LA"), ("PNG", "I;16"), ("WEBP", "RGB"), ("BMP", "RGB"), ("BMP", "P")),
    *(("GIF", "RGB"), ("TIFF", "RGB"), ("TIFF", "F"), ("TIFF", "CMYK"), ("TIFF", "1")),
    *(("PPM", "RGB"), ("AVIF", "RGB")),
)
_CLIPS = (
    *(("ffv1", ".mkv"), ("mjpeg", ".avi"), ("mpeg4", ".mp4"), ("mpeg4", ".mov"), ("flv1", ".flv")),
    *(("mpeg1video", ".mpg"), ("wmv2", ".wmv"), ("libvpx-vp9", ".webm"), ("libx264", ".mp4")),
)


def _pictures(workshop: Workshop) -> list[bytes]:
    return [workshop.picture(*one).read_bytes() for one in _PICTURES]


def _read_picture(_workshop: Workshop, scratch: Path) -> Reader:
    import numpy as np

    from qmdd.runtime.images import load_rgb
    from qmdd.runtime.pixels import load_prepared
    from qmdd.runtime.preprocess import prepare

    path = scratch / "picture"

    def read(data: bytes) -> None:
        # The one from memory as qmdd demo has it, the other from a file as qmdd detect.
        seen = load_prepared(data, _SIDES)
        path.write_bytes(data)
        whole = load_rgb(path)
        if not np.array_equal(seen, prepare(whole, **_SIDES)):
            raise NotRight("two ways to decode, two pictures")

    return read


def _clips(workshop: Workshop) -> list[bytes]:
    return [suffix.encode() + b"\n" + workshop.clip(c, suffix).read_bytes() for c, suffix in _CLIPS]


def _mutate_clip(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    name, _, rest = data.partition(b"\n")
    return name + b"\n" + mutate_media(rng, rest, [seed.partition(b"\n")[2] for seed in seeds])


def _read_clip(_workshop: Workshop, scratch: Path) -> Reader:
    import logging

    from qmdd.runtime.video import Frame, read_frames

    logging.getLogger("libav").setLevel(logging.CRITICAL)

    def read(data: bytes) -> None:
        suffix, _, held = data.partition(b"\n")
        path = scratch / f"clip{suffix.decode()}"
        path.write_bytes(held)
        for item in read_frames(path, every=2):
            if isinstance(item, Frame) and (item.rgb.ndim != 3 or item.rgb.shape[2] != 3):
                raise NotRight(f"a frame of shape {item.rgb.shape}")

    return read


KINDS = (
    Kind(
        "image",
        "images of every format that is taken, by Pillow",
        _pictures,
        _read_picture,
        (mutate_media,),
        cases=60_000,
    ),
    Kind(
        "video",
        "videos of nine containers and codecs, by FFmpeg (PyAV)",
        _clips,
        _read_clip,
        (_mutate_clip,),
        seconds=60,
        cases=5_000,
    ),
)
