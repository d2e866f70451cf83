"""Accuracy and average precision per generator, with the torch detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..models import Detector
from ..runtime.images import load_rgb
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


def scores_of(
    detector: Detector,
    samples: Iterable[Sample],
    batch: int = 16,
    report: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Scores float64 ``[len(samples)]``; images of one size are batched together."""
    detector.eval()
    scores: list[float] = []
    waiting: list[npt.NDArray[np.uint8]] = []

    def flush() -> None:
        if waiting:
            images = torch.from_numpy(np.stack(waiting)).permute(0, 3, 1, 2)
            scores.extend(torch.sigmoid(detector(images)).double().tolist())
            waiting.clear()

    with torch.no_grad():
        for sample in samples:
            image = load_rgb(sample.path)
            if waiting and (waiting[0].shape != image.shape or len(waiting) == batch):
                flush()
                if report:
                    report(len(scores))
            waiting.append(image)
        flush()
        if report:
            report(len(scores))
    return np.asarray(scores)


def by_generator(samples: list[Sample], scores: npt.ArrayLike) -> dict[str, Metrics]:
    """Metrics of each generator's folder, in name order."""
    score = np.asarray(scores)
    found = {}
    for generator in sorted({sample.generator for sample in samples}):
        rows = [i for i, sample in enumerate(samples) if sample.generator == generator]
        found[generator] = metrics_of([samples[i].label for i in rows], score[rows])
    return found
