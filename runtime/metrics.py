"""Accuracy and average precision per generator, from scores and labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .folder import Sample

#: Score above which an image is called fake.
THRESHOLD = 0.5


class Metrics(NamedTuple):
    """``acc`` at :data:`THRESHOLD` and ``ap`` (scikit-learn's average precision), both 0..1."""

    images: int
    acc: float
    ap: float
    real_acc: float
    fake_acc: float


def metrics_of(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Metrics:
    """Metrics of scores (probability of fake) against labels (0 real, 1 fake)."""
    from sklearn.metrics import average_precision_score

    truth, score = np.asarray(labels), np.asarray(scores)
    correct = (score > THRESHOLD) == (truth == 1)

    def share(mask: npt.NDArray[np.bool_]) -> float:
        return float(correct[mask].mean()) if mask.any() else float("nan")

    return Metrics(
        int(truth.size),
        float(correct.mean()),
        float(average_precision_score(truth, score)),
        share(truth == 0),
        share(truth == 1),
    )


def by_generator(samples: list[Sample], scores: npt.ArrayLike) -> dict[str, Metrics]:
    """Metrics of each generator's folder, in name order."""
    score = np.asarray(scores)
    found = {}
    for generator in sorted({sample.generator for sample in samples}):
        rows = [i for i, sample in enumerate(samples) if sample.generator == generator]
        found[generator] = metrics_of([samples[i].label for i in rows], score[rows])
    return found
