"""From files to verdicts, as fast as the model computes: decoding stands beside inference.

Each thread takes a file, decodes it and runs the model on it, on one core: two images on two cores
are faster than one image on both (docs/detect.md has the measurement), and nothing is handed from
thread to thread. Frames of a video are decoded one after the other by whichever thread asks next.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ImageError
from .inputs import Input
from .ordered import ordered
from .pixels import load_prepared
from .preprocess import prepare
from .verdicts import Clip, FramePlace, Verdict, verdict_from_score
from .video import Broken, Decoded, Frame, is_video, read_frames

U8 = npt.NDArray[np.uint8]

#: Scores of prepared pixels of equal size, uint8 ``[n, 3, h, w]``.
Scores = Callable[[U8], Sequence[float]]


class Job(NamedTuple):
    """A step towards a verdict; what it is shows in what it holds.

    Attributes:
        path: the file.
        error: why it cannot be scored.
        frame: of a video, which frame; ``pixels`` are there.
        pixels: uint8 ``[3, h, w]``; an image's are loaded by the thread that scores them.
        broken: of a video, what was passed over.
        decoded: the end of a video, and how many frames it had.
        score: once there is one.
    """

    path: Path
    error: str | None = None
    frame: FramePlace | None = None
    pixels: U8 | None = None
    broken: str | None = None
    decoded: int | None = None
    score: float | None = None

    @property
    def to_score(self) -> bool:
        """Whether there is something to score."""
        return self.error is None and self.broken is None and self.decoded is None


def run(
    inputs: Iterable[Input],
    scores: Scores,
    *,
    sides: dict[str, int],
    threshold: float,
    threads: int,
    batch: int,
    every: int,
    frames: bool,
) -> Iterator[Verdict]:
    """Verdicts in the order of ``inputs``; arguments as in :meth:`~.detector.Detector.detect`.

    Images are taken ``batch`` at a time, and those of equal size among them are scored together:
    which images share a run depends on their places alone.
    """
    jobs = _jobs(inputs, sides, every)
    groups = iter(lambda: list(itertools.islice(jobs, batch)), [])
    done = ordered(groups, lambda group: _score(group, scores, sides), threads)
    try:
        yield from _verdicts(itertools.chain.from_iterable(done), threshold, frames)
    finally:
        done.close()


def _jobs(inputs: Iterable[Input], sides: dict[str, int], every: int) -> Iterator[Job]:
    for path, error in inputs:
        if error is None and is_video(path):
            yield from _frames(path, sides, every)
        else:
            yield Job(path, error)


def _frames(path: Path, sides: dict[str, int], every: int) -> Iterator[Job]:
    """A video's frames, what is broken in it, and its end, or an error in place of the end."""
    try:
        for found in read_frames(path, every):
            if isinstance(found, Frame):
                try:
                    pixels = prepare(found.rgb, **sides)
                except ImageError as error:
                    yield Job(path, broken=f"frame {found.number:,}: {error}")
                else:
                    yield Job(path, frame=FramePlace(found.number, found.seconds), pixels=pixels)
            elif isinstance(found, Broken):
                yield Job(path, broken=found.reason)
            elif isinstance(found, Decoded):
                yield Job(path, decoded=found.frames)
    except ImageError as error:
        yield Job(path, error=str(error))


def _score(group: list[Job], scores: Scores, sides: dict[str, int]) -> list[Job]:
    """The same jobs, scored, their pixels dropped."""
    by_size: dict[tuple[int, ...], list[tuple[int, U8]]] = {}
    for place, job in enumerate(group):
        if not job.to_score:
            continue
        try:
            pixels = load_prepared(job.path, sides) if job.pixels is None else job.pixels
        except ImageError as error:
            group[place] = job._replace(error=str(error))
        else:
            by_size.setdefault(pixels.shape, []).append((place, pixels))
    for alike in by_size.values():
        found = scores(
            alike[0][1][np.newaxis] if len(alike) == 1 else np.stack([p for _, p in alike])
        )
        for (place, _), score in zip(alike, found, strict=True):
            group[place] = group[place]._replace(score=score, pixels=None)
    return group


def _verdicts(jobs: Iterable[Job], threshold: float, frames: bool) -> Iterator[Verdict]:
    clip, total = Clip(0, 0, 0), 0.0
    for job in jobs:
        word = None if job.score is None else verdict_from_score(job.score, threshold)
        if job.frame is not None and job.score is not None:
            fakes = clip.fakes + (word == "fake")
            clip, total = clip._replace(frames=clip.frames + 1, fakes=fakes), total + job.score
            if frames:
                yield Verdict(job.path, job.score, word, frame=job.frame)
        elif job.broken is not None:
            first = clip.first_broken or job.broken
            clip = clip._replace(broken=clip.broken + 1, first_broken=first)
        elif job.decoded is not None:
            yield _clip_verdict(job.path, clip._replace(decoded=job.decoded), total, threshold)
            clip, total = Clip(0, 0, 0), 0.0
        elif job.error is not None:
            # A video that ends so has no verdict: what was seen of it is not the whole.
            yield Verdict(job.path, error=job.error)
            clip, total = Clip(0, 0, 0), 0.0
        else:
            yield Verdict(job.path, job.score, word)


def _clip_verdict(path: Path, clip: Clip, total: float, threshold: float) -> Verdict:
    if not clip.frames:
        reason = clip.first_broken or "it holds none"
        return Verdict(path, error=f"{path}: no frame that can be used: {reason}", clip=clip)
    score = total / clip.frames
    return Verdict(path, score, verdict_from_score(score, threshold), clip=clip)
