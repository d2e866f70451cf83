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
from .calibrate import Plan
from .errors import CalibrationError
from .histogram import Histogram
from .images import CalibrationImages, Report
from .observe import full_precision, observe

#: Key under which ``qmdd sensitivity --json`` puts a mixture, and a file may hold it.
LAYER_BITS = "layer_bits"
#: Larger files of widths are refused unread.
_MAX_BYTES = 1 << 20
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


def load_layer_bits(path: str | os.PathLike[str]) -> tuple[tuple[str, int], ...]:
    """Widths by layer from a JSON file: an object, or the output of ``qmdd sensitivity --json``.

    Raises:
        CalibrationError: not such a file.
    """
    try:
        if os.stat(path).st_size > _MAX_BYTES:
            raise CalibrationError(f"{path}: larger than 1 MiB; not a file of widths")
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the widths: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}: not JSON ({error})") from error
    if isinstance(held, dict) and LAYER_BITS in held:
        held = held[LAYER_BITS]
        if held is None:
            raise CalibrationError(
                f"{path}: qmdd sensitivity suggested no widths here; run it with --budget"
            )
    if not isinstance(held, dict) or not all(type(bits) is int for bits in held.values()):
        raise CalibrationError(
            f'{path}: must be a JSON object of widths by layer, such as {{"stages.0.0.conv1": 4}}, '
            f"by itself or under {LAYER_BITS!r}"
        )
    return tuple(sorted(held.items()))


def peak_memory() -> int | None:
    """The most memory that this process has had so far, in bytes; ``None`` where nobody knows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


__all__ = ["LAYER_BITS", "Session", "load_layer_bits", "open_session", "peak_memory"]
