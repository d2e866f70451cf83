"""Scores of images with the torch detector, on the pixels that a bundle's model would see."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..models import Detector
from ..models.checkpoint import Checkpoint
from ..runtime.contract import SIDES, THRESHOLD
from ..runtime.detector import Verdict, verdict_from_score
from ..runtime.errors import DataError, ImageError
from ..runtime.folder import Sample
from ..runtime.known_sets import generators_from_record
from ..runtime.pixels import load_prepared
from ..runtime.scoring import Subject
from .errors import CalibrationError

#: Images computed at once, if of one size.
BATCH = 4


def subject_from_checkpoint(path: Path) -> Subject:
    """The detector of a checkpoint file, latent or frozen, run by torch.

    Raises:
        CheckpointError, CalibrationError: it cannot be used.
    """
    checkpoint = Checkpoint(path)
    try:
        trained_on = generators_from_record(checkpoint.metadata.get("generators"))
    except DataError as error:
        raise CalibrationError(f"{path}: {error}; train it again") from error
    subject = subject_from_detector(checkpoint.detector(), path)
    return subject._replace(trained_on=trained_on)


def subject_from_detector(detector: Detector, path: Path) -> Subject:
    """A detector at hand, for :func:`~qmdd.runtime.scoring.score_samples`; ``path`` is its name."""
    config = detector.config
    return Subject(
        path,
        "checkpoint",
        config.arch,
        config.bits,
        THRESHOLD,
        SIDES,
        None,
        functools.partial(verdicts_of, detector),
    )


def verdicts_of(detector: Detector, paths: Iterable[Path], batch: int = BATCH) -> Iterator[Verdict]:
    """Verdicts at :data:`THRESHOLD` in the order of ``paths``; at most ``batch`` images at a time.

    Images of one size that follow each other are computed together. An image that cannot be used
    gets a verdict with its error.

    Raises:
        CalibrationError: a logit is not a number.
    """
    detector.eval()
    waiting: list[tuple[Path, npt.NDArray[np.uint8]]] = []
    for path in paths:
        try:
            pixels = load_prepared(path, SIDES)
        except ImageError as error:
            yield from _computed(detector, waiting)
            waiting = []
            yield Verdict(path, error=str(error))
            continue
        if waiting and (waiting[0][1].shape != pixels.shape or len(waiting) == batch):
            yield from _computed(detector, waiting)
            waiting = []
        waiting.append((path, pixels))
    yield from _computed(detector, waiting)


def _computed(
    detector: Detector, waiting: list[tuple[Path, npt.NDArray[np.uint8]]]
) -> list[Verdict]:
    if not waiting:
        return []
    with torch.no_grad():
        logits = detector(torch.from_numpy(np.stack([pixels for _, pixels in waiting])))
    scores = torch.sigmoid(logits.double()).tolist()
    for (path, _), score in zip(waiting, scores, strict=True):
        if math.isnan(score):
            raise CalibrationError(f"{path}: the detector's logit is not a number; train it again")
    return [
        Verdict(path, score, verdict_from_score(score, THRESHOLD))
        for (path, _), score in zip(waiting, scores, strict=True)
    ]


def scores_of(
    detector: Detector,
    samples: Iterable[Sample],
    batch: int = BATCH,
    report: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Scores float64 ``[len(samples)]``; ``report`` is called with how many there are.

    Raises:
        ImageError: the first image that cannot be used.
    """
    scores: list[float] = []
    for verdict in verdicts_of(detector, (sample.path for sample in samples), batch):
        if verdict.score is None:
            raise ImageError(verdict.error or f"{verdict.path}: no score")
        scores.append(verdict.score)
        if report:
            report(len(scores))
    return np.asarray(scores, dtype=np.float64)
