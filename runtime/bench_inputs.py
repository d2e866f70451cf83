"""The images that a benchmark runs on, and the time of what stands before and behind a session."""

from __future__ import annotations

import dataclasses
import io
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .errors import ImageError
from .images import load_rgb, require_pillow
from .preprocess import prepare
from .verdicts import score_from_logit, verdict_from_score

U8 = npt.NDArray[np.uint8]
#: What :func:`~.preprocess.prepare` takes.
Sides = dict[str, int]

#: Side of what is timed where nothing else is asked for.
SIDE = 256
#: Different batches that take turns; more only fill the memory.
_MOST_BATCHES = 8
#: Files whose decoding is timed, and seconds that it may take.
_MOST_FILES, _FILE_SECONDS = 8, 1.0
#: Quality of the JPEG that is made of pixels that have no file of their own.
_QUALITY = 95


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is timed.

    Attributes:
        origin: ``golden`` (those of the bundle), ``synthetic`` or ``files``.
        images: uint8 ``[3, h, w]``, all of one size.
        files: where they come from; empty if they are no files.
        left_out: files of another size.
        logits: what the source model makes of each image, where the bundle says so; or empty.
    """

    origin: str
    images: list[U8]
    files: list[Path] = dataclasses.field(default_factory=list)
    left_out: int = 0
    logits: list[float] = dataclasses.field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images[0].shape[1], self.images[0].shape[2]

    def batches(self, count: int) -> U8:
        """uint8 ``[k, count, 3, h, w]``: the images over and over, at most a few batches."""
        number = min(_MOST_BATCHES, -(-len(self.images) // count))
        chosen = [self.images[index % len(self.images)] for index in range(number * count)]
        return np.stack(chosen).reshape(number, count, *self.images[0].shape)

    def difference(self, logits: Sequence[float]) -> float | None:
        """The largest difference from the source's logits of what came out for :meth:`batches`.

        ``None`` where the source's are not known.
        """
        if not self.logits:
            return None
        expected = [self.logits[index % len(self.logits)] for index in range(len(logits))]
        return float(np.abs(np.asarray(logits) - np.asarray(expected)).max())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        height, width = self.size
        return {
            "origin": self.origin,
            "images": len(self.images),
            "height": height,
            "width": width,
            "left_out": self.left_out,
        }


def size_fault(bundle: Bundle, side: int, sides: Sides | None = None) -> str | None:
    """Why ``bundle`` takes no images of that many pixels a side; ``None`` if it does.

    ``sides`` are those that its runtimes take; default: the bundle's own.
    """
    taken = sides or bundle.sides
    low, multiple, high = (taken[name] for name in ("min_side", "multiple", "max_side"))
    if low <= side <= high and side % multiple == 0:
        return None
    return f"{side} pixels a side; {bundle.path} takes {low} to {high}, in steps of {multiple}"


def find_inputs(
    bundle: Bundle,
    files: Sequence[Path] = (),
    side: int | None = None,
    *,
    sides: Sides | None = None,
) -> Inputs:
    """What to time ``bundle`` on.

    Args:
        files: images; cropped as for detection, and to ``side``. Those that do not have the usual
            size are left out, because a batch is of one size.
        side: pixels; by default the files' own, and :data:`SIDE` without any. Without files the
            bundle's golden images are taken, where they are large enough, or else a made-up one.
        sides: that the runtimes take (:func:`~.sessions.sides_for`); default: the bundle's own.

    Raises:
        ImageError: an image that cannot be read, or a side that the bundle does not take.
    """
    fault = size_fault(bundle, SIDE if side is None else side, sides)
    if fault and (side is not None or not files):
        raise ImageError(fault)
    if files:
        return _from_files(sides or bundle.sides, files, side)
    side = side or SIDE
    return _golden(bundle, side) or Inputs("synthetic", [synthetic(side)])


def synthetic(side: int, seed: int = 0) -> U8:
    """Smooth colours with a little grain, uint8 ``[3, side, side]``: it decodes like a photo."""
    rng = np.random.default_rng(seed)
    cells = -(-side // 16)
    coarse = rng.integers(0, 256, (3, cells, cells)).astype(np.float64)
    smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :side, :side]
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def _from_files(sides: Sides, files: Sequence[Path], side: int | None) -> Inputs:
    if side is not None:
        sides = {**sides, "max_side": side}
    images = []
    for path in files:
        try:
            images.append(prepare(load_rgb(path), **sides))
        except ImageError as error:
            told = str(error)
            raise ImageError(told if str(path) in told else f"{path}: {told}") from error
    if side is not None:
        usual: tuple[int, ...] = (3, side, side)
        if all(image.shape != usual for image in images):
            raise ImageError(f"{files[0]}: smaller than --size {side}, like all that were given")
    else:
        usual = Counter(image.shape for image in images).most_common(1)[0][0]
    kept = [
        (path, image) for path, image in zip(files, images, strict=True) if image.shape == usual
    ]
    return Inputs(
        "files", [image for _, image in kept], [path for path, _ in kept], len(images) - len(kept)
    )


def _golden(bundle: Bundle, side: int) -> Inputs | None:
    """The bundle's golden images cropped to ``side``, if any is large enough."""
    from .golden import read_golden

    if bundle.golden_path is None:
        return None
    golden = read_golden(bundle.golden_path)
    pairs = zip(golden.images, golden.logits, strict=True)
    kept = [(image, float(logit)) for image, logit in pairs if min(image.shape[1:]) >= side]
    if not kept:
        return None
    whole = all(image.shape == (3, side, side) for image, _ in kept)
    images = [np.ascontiguousarray(image[:, :side, :side]) for image, _ in kept]
    return Inputs("golden", images, logits=[logit for _, logit in kept] if whole else [])


def stage_seconds(inputs: Inputs, bundle: Bundle, logits: Sequence[float]) -> dict[str, Any]:
    """Median seconds an image of decoding, cropping and of making a verdict of a logit.

    One thread. Pixels that have no file are written as JPEG first, and so decoded from one.
    """
    require_pillow()
    with tempfile.TemporaryDirectory() as folder:
        files = inputs.files[:_MOST_FILES] or _as_jpeg(inputs.images[:_MOST_FILES], Path(folder))
        decode: list[float] = []
        crop: list[float] = []
        ends = time.monotonic() + _FILE_SECONDS
        while not decode or time.monotonic() < ends:
            for path in files:
                started = time.perf_counter()
                rgb = load_rgb(path)
                decoded = time.perf_counter()
                prepare(rgb, **bundle.sides)
                crop.append(time.perf_counter() - decoded)
                decode.append(decoded - started)
    return {
        "decode_seconds": statistics.median(decode),
        "crop_seconds": statistics.median(crop),
        "verdict_seconds": _verdict_seconds(logits, bundle.threshold),
        "runs": len(decode),
        "decoded": "the files given" if inputs.files else f"JPEG of quality {_QUALITY}",
    }


def _verdict_seconds(logits: Sequence[float], threshold: float) -> float:
    """It takes less than a clock's tick, so many are timed at once."""
    rounds, count = [], 200
    for _ in range(5):
        started = time.perf_counter()
        for index in range(count):
            verdict_from_score(score_from_logit(logits[index % len(logits)]), threshold)
        rounds.append((time.perf_counter() - started) / count)
    return statistics.median(rounds)


def _as_jpeg(images: Sequence[U8], folder: Path) -> list[Path]:
    from PIL import Image

    paths = []
    for index, image in enumerate(images):
        stream = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(stream, "JPEG", quality=_QUALITY)
        paths.append(folder / f"{index}.jpg")
        paths[-1].write_bytes(stream.getvalue())
    return paths
