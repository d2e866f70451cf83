"""``qmdd watch``: look, score what is ready, write it down, wait; until told to end."""

from __future__ import annotations

import collections
import contextlib
import datetime
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..bundle import MODEL
from ..detector import EVERY, Detector
from ..errors import DataError
from ..inputs import Input
from ..verdicts import Verdict
from .found import Found, look_at
from .log import LogError, VerdictLog
from .notify import Notify
from .scan import Clock, Scan
from .signals import Signals

#: Looking takes at most this part of the time: a huge folder is looked through less often.
_SHARE = 0.1
#: Seconds until what could not be written is tried again.
RETRY = 5.0

Say = Callable[[str], None]


class Tally(NamedTuple):
    """What a watch has done.

    Attributes:
        scored: files with a verdict.
        failed: files with an error.
        waiting: files that were still being written at the end.
    """

    scored: int = 0
    failed: int = 0
    waiting: int = 0


class Watch:
    """A folder, a detector, and the log that what comes into the folder is written to.

    Args:
        detector: scores the files.
        scan: looks for them.
        log: takes the verdicts.
        threshold, every: as of :meth:`~qmdd.runtime.detector.Detector.detect`.
        poll: seconds between two looks.
        signals: what is asked for meanwhile.
        say: takes a line for people, each once, when something changes.
        report: takes the number of files done.
        clock: for tests.
    """

    def __init__(
        self,
        detector: Detector,
        scan: Scan,
        log: VerdictLog,
        *,
        threshold: float | None = None,
        every: int = EVERY,
        poll: float = 2.0,
        signals: Signals | None = None,
        say: Say = lambda _text: None,
        report: Callable[[int], None] = lambda _count: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.scored = self.failed = 0
        self._detector, self._scan, self._log = detector, scan, log
        self._threshold, self._every, self._poll = threshold, every, poll
        self._signals = signals or Signals()
        self._say, self._report, self._clock = say, report, clock
        self._notify = Notify()
        self._told = ""
        self._closed: set[Path] = set()
        held = detector.bundle.manifest["files"][MODEL]["sha256"]
        self._model = str(held)[:16]

    def run(self, *, once: bool = False) -> Tally:
        """Watch until a signal says to end; with ``once``, until all that is there is done.

        Raises:
            SessionError: the runtime fails. DataError: with ``once``, the folder is not there.
        """
        self._notify.send("READY=1")
        looks = 0
        while not self._signals.stop:
            if self._scan.there:
                self._tell("")
                self._look()
                self._tell_closed()
                looks += 1
                if once and (looks > 1 or not self._scan.waiting):
                    break
            elif once:
                raise DataError(f"{self._scan.folder}: no such folder, or it may not be listed")
            else:
                self._tell(f"{self._scan.folder}: not there; waiting for it")
            self._notify.status(self._state())
            long = self._scan.took * (1 / _SHARE - 1)
            self._pause(self._scan.settle if once else max(self._poll, long))
        self._notify.send("STOPPING=1")
        return Tally(self.scored, self.failed, len(self._scan.waiting))

    def _state(self) -> str:
        return self._told or f"watching: {self.scored:,} scored, {self.failed:,} could not be"

    def _pause(self, seconds: float) -> None:
        """Wait, showing signs of life and answering signals."""
        until = self._clock() + seconds
        while not self._signals.stop and (left := until - self._clock()) > 0:
            self._answer()
            self._notify.alive()
            self._signals.wait(min(left, self._notify.period or left))

    def _answer(self) -> None:
        """Open the log anew if that was asked for; the old one stays open until it works."""
        if self._signals.reopen:
            self._signals.reopen = False
            if self._try(self._log.reopen):
                self._say(f"{self._log.path}: opened anew")

    def _try(self, write: Callable[[], None]) -> bool:
        """Write until it works, or until a signal says to end: then false."""
        told = False
        while not self._signals.stop:
            try:
                write()
            except (OSError, LogError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                if not told:
                    self._say(f"{self._log.path}: {reason}; trying again, nothing is lost")
                self._notify.status(f"cannot write {self._log.path}: {reason}")
                told = True
                self._notify.alive()
                self._signals.wait(min(RETRY, self._notify.period or RETRY))
            else:
                if told:
                    self._say(f"{self._log.path}: written again")
                return True
        return False

    def _tell(self, text: str) -> None:
        """Say ``text`` once, and that it is over when it is."""
        if text != self._told:
            self._say(text or f"{self._scan.folder}: there")
        self._told = text

    def _tell_closed(self) -> None:
        """Say of each folder once that it cannot be looked into."""
        for path in sorted(self._scan.closed - self._closed):
            self._say(f"{path}: may not be listed and is passed over; check its permissions")
        self._closed = set(self._scan.closed)

    def _step(self) -> bool:
        self._notify.alive()
        return not self._signals.stop

    def _look(self) -> None:
        """Score what is ready."""
        ready = self._scan.ready(self._log.done, self._step)
        first = next(ready, None)
        if first is None:
            return
        in_hand: collections.deque[Found] = collections.deque()

        def inputs() -> Iterator[Input]:
            for found in _chained(first, ready):
                in_hand.append(found)
                yield Input(found.path)

        # Frames are asked for as signs of life from within a long video.
        verdicts = self._detector.detect(
            inputs(), threshold=self._threshold, every=self._every, frames=True
        )
        with contextlib.closing(cast("Generator[Verdict, None, None]", verdicts)):
            for verdict in verdicts:
                self._notify.alive()
                if verdict.frame is None:
                    self._write(in_hand.popleft(), verdict)
                    self._answer()
                elif self._signals.stop:
                    break  # the rest of a video may take long: it is scored next time

    def _write(self, found: Found, verdict: Verdict) -> None:
        """Put the verdict into the log, unless the file is no longer the one that was scored."""
        if look_at(self._scan.folder, found.path) != found:
            return
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        line: dict[str, Any] = {"time": now, **verdict.to_dict(), "model": self._model}
        if self._put(found, line):
            self.scored += verdict.error is None
            self.failed += verdict.error is not None
            self._report(self.scored + self.failed)

    def _put(self, found: Found, line: dict[str, Any]) -> bool:
        try:  # also when it was told to end: this one is in hand
            self._log.append(found, line)
        except OSError:
            return self._try(lambda: self._log.append(found, line))
        return True


def _chained(first: Found, rest: Iterator[Found]) -> Iterator[Found]:
    yield first
    yield from rest
