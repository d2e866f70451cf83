"""TensorRT's nested build phases as one number that only grows."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

#: Of the number.
WHOLE = 1000

Report = Callable[[str, int], None]


@dataclasses.dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0


class Progress:
    """Follows phases as they start, step and finish; they nest, and may come from any thread.

    Args:
        report: called with the innermost phase's name and how much of :data:`WHOLE` is done,
            whenever that number has grown or the name changed.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: list[_Phase] = []
        self._last: tuple[str, int] = ("", 0)
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of ``steps`` steps begins inside ``parent``."""
        with self._lock:
            names = [phase.name for phase in self._open]
            if parent in names:  # a sibling that never finished is over
                del self._open[names.index(parent) + 1 :]
            self._open.append(_Phase(name, max(1, steps)))
            self._tell()

    def step(self, name: str, done: int) -> None:
        """Step ``done``, counted from 0, of phase ``name`` is complete."""
        with self._lock:
            for phase in self._open:
                if phase.name == name:
                    phase.done = min(phase.steps, done + 1)
            self._tell()

    def finish(self, name: str) -> None:
        """Phase ``name`` is complete."""
        with self._lock:
            names = [phase.name for phase in self._open]
            if name in names:
                del self._open[names.index(name) :]
            if not self._open:
                self._tell(WHOLE)

    def _tell(self, whole: int | None = None) -> None:
        fraction, share = 0.0, 1.0
        for phase in self._open:
            fraction += share * phase.done / phase.steps
            share /= phase.steps
        done = max(self._last[1], int(WHOLE * min(1.0, fraction)) if whole is None else whole)
        name = self._open[-1].name if self._open else self._last[0]
        if (name, done) != self._last:
            self._last = (name, done)
            self._report(name, done)
