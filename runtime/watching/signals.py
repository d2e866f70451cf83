"""What a service is told by signals: end, and open the output anew. And to wait for them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType


class Signals:
    """What has been asked for; the handlers set these and do nothing else.

    Attributes:
        stop: to end after the file in hand (SIGTERM, SIGINT).
        reopen: to open the output anew (SIGHUP).
    """

    def __init__(self) -> None:
        self.stop = False
        self.reopen = False
        self._wakes: int | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[Signals]:
        """While the block runs, signals end here. A second SIGINT interrupts at once.

        Only the main thread may install handlers.
        """
        receiver, sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._interrupt,
            signal.SIGHUP: self._reopen,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        # A signal that comes between a look at the flags and the wait would be slept over.
        woken = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        self._wakes = receiver
        try:
            yield self
        finally:
            self._wakes = None
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(receiver)
            os.close(sender)

    def wait(self, seconds: float) -> None:
        """Sleep for that long, or until a signal comes."""
        if self.stop:
            return
        if self._wakes is None:
            time.sleep(seconds)
            return
        if select.select([self._wakes], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakes, 4096)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True

    def _reopen(self, _number: int, _frame: FrameType | None) -> None:
        self.reopen = True
