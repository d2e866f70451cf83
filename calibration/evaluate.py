"""Scores of a folder's images with the torch detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch

from ..models import Detector
from ..runtime.folder import Sample
from ..runtime.images import load_rgb


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
