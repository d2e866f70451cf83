"""Loss curve and processor time of a run, kept beside its state so that a kill loses neither."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from qmdd.calibration.train import Progress
from qmdd.runtime.files import write_atomically

CURVE = "curve.json"


class Curve:
    """Mean loss and processor seconds of every epoch; give :meth:`step` to the trainer.

    The trainer saves its state at the end of an epoch, after it has told of its last step: an epoch
    is written down before the state that it ends with, and an epoch that is run again replaces its
    own entry.
    """

    def __init__(self, folder: Path, per_epoch: int) -> None:
        self._path, self._per_epoch = folder / CURVE, per_epoch
        self._epochs: dict[int, tuple[float, float]] = {}
        with contextlib.suppress(OSError, ValueError, TypeError):
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self._epochs = {index: (float(a), float(b)) for index, (a, b) in enumerate(kept)}
        self._losses: list[float] = []
        self._since = time.process_time()

    def step(self, progress: Progress) -> None:
        """Take note of one step."""
        self._losses.append(progress.loss)
        epoch, position = divmod(progress.step, self._per_epoch)
        if position == 0:
            now = time.process_time()
            mean = sum(self._losses) / len(self._losses)
            self._epochs[epoch - 1] = (mean, now - self._since)
            self._losses, self._since = [], now
            rows = [self._epochs[index] for index in sorted(self._epochs)]
            write_atomically(self._path, json.dumps(rows).encode())

    @property
    def losses(self) -> list[float]:
        """Mean loss of each epoch."""
        return [self._epochs[index][0] for index in sorted(self._epochs)]

    @property
    def seconds(self) -> float:
        """Processor time of all epochs; a busy machine does not lengthen it."""
        return sum(seconds for _, seconds in self._epochs.values())
