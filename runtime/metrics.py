"""Accuracy and average precision from scores and labels, with numpy alone.

A device measures a bundle with what the runtime has; the tests hold average precision to
scikit-learn's, which is what the field's tables are made with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .contract import THRESHOLD
from .folder import Sample
from .intervals import weighted_ap


class Metrics(NamedTuple):
    """``acc`` at the threshold and ``ap`` (scikit-learn's average precision), all 0..1.

    NaN where there is nothing to measure: ``real_acc`` without real images, ``fake_acc`` without
    fakes, ``ap`` without one of the two.
    """

    images: int
    acc: float
    ap: float
    real_acc: float
    fake_acc: float


def metrics_of(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float = THRESHOLD
) -> Metrics:
    """Metrics of scores (probability of fake) against labels (0 real, 1 fake)."""
    truth, score = np.asarray(labels), np.asarray(scores)
    correct = (score > threshold) == (truth == 1)
    return Metrics(
        int(truth.size),
        share(correct),
        average_precision(truth, score),
        share(correct[truth == 0]),
        share(correct[truth == 1]),
    )


def by_generator(samples: list[Sample], scores: npt.ArrayLike) -> dict[str, Metrics]:
    """Metrics of each generator's images, in name order; intervals: :mod:`.evaluate`."""
    score = np.asarray(scores)
    found = {}
    for generator in sorted({sample.generator for sample in samples}):
        rows = [i for i, sample in enumerate(samples) if sample.generator == generator]
        found[generator] = metrics_of([samples[i].label for i in rows], score[rows])
    return found


def share(correct: npt.NDArray[np.bool_]) -> float:
    """The mean; NaN of nothing."""
    return float(correct.mean()) if correct.size else float("nan")


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision as scikit-learn defines it; NaN unless both classes are there.

    >>> round(average_precision([0, 1, 0, 1], [0.1, 0.4, 0.35, 0.8]), 3)
    1.0
    """
    truth, score = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    real, fake = score[truth == 0], score[truth == 1]
    once = (np.ones((1, part.size), dtype=np.int64) for part in (real, fake))
    return float(weighted_ap(real, fake, *once)[0])
