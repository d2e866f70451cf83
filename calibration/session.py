"""What ``calibrate`` and ``sensitivity`` begin with, and what a calibrated checkpoint records."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import Counter
from pathlib import Path

from ..models import Detector
from ..models.checkpoint import Checkpoint
from ..models.histogram import Histogram
from .calibrate import Plan
from .images import CalibrationImages, Report
from .layer_bits import LAYER_BITS
from .observe import full_precision, observe

#: Metadata that a checkpoint writes itself.
_OWN = ("format", "version", "config")


@dataclasses.dataclass(frozen=True)
class Session:
    """A full-precision checkpoint, the images, and what was seen of it on them.

    Attributes:
        path: the checkpoint.
        sha256: of the file.
        metadata: its own notes.
        detector: full precision, in evaluation mode.
        images: usable ones.
        observed: a histogram for each layer.
    """

    path: Path
    sha256: str
    metadata: dict[str, str]
    detector: Detector
    images: CalibrationImages
    observed: dict[str, Histogram]

    def notes(self, plan: Plan) -> dict[str, str]:
        """What a checkpoint calibrated by ``plan`` says of its origin: the source's notes too."""
        labels = Counter(sample.label for sample in self.images.samples)
        entry = {
            "method": plan.method.name,
            "percentile": plan.method.percentile if plan.method.name == "percentile" else None,
            "bits": plan.bits,
            "slr": plan.slr,
            LAYER_BITS: dict(plan.layer_bits),
            "seed": self.images.seed,
            "images": len(self.images),
            "real": labels[0],
            "fake": labels[1],
            "skipped": len(self.images.skipped),
            "data": self.images.digest,
            "source": self.sha256,
        }
        return {**self.metadata, "calibration": json.dumps(entry, sort_keys=True)}


def open_session(
    checkpoint: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    count: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    report: Report | None = None,
) -> Session:
    """Read the checkpoint, check the images, observe the one on the others.

    Args:
        checkpoint: full precision, latent.
        data: folder of images, see :class:`.images.CalibrationImages`, as are the rest.
        count: how many images to use.
        seed: of their choice and order.
        skip_bad: leave unreadable ones out.
        report: called with what is being done, how much of it and of how much.

    Raises:
        CheckpointError, DataError, CalibrationError: what cannot be used, and why.
    """
    opened = Checkpoint(checkpoint)
    detector = full_precision(opened)
    images = CalibrationImages(data, count=count, seed=seed, skip_bad=skip_bad, report=report)
    return Session(
        path=opened.path,
        sha256=opened.sha256(),
        metadata={k: v for k, v in opened.metadata.items() if k not in _OWN},
        detector=detector,
        images=images,
        observed=observe(detector, images, report),
    )


def peak_memory() -> int | None:
    """The most memory that this process has had so far, in bytes; ``None`` where nobody knows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


__all__ = ["Session", "open_session", "peak_memory"]
