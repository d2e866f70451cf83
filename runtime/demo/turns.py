"""At most so many images are worked on, so many more wait, and others are turned away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import anyio

T = TypeVar("T")


class Full(Exception):
    """As many as may wait are waiting."""


class Turns:
    """The places at a server.

    Args:
        at_once: how many are worked on at a time, each in a thread.
        queue: how many more may wait; their bytes are in memory meanwhile.
    """

    def __init__(self, at_once: int, queue: int) -> None:
        self.at_once, self.queue = at_once, queue
        self._inside = 0
        self._threads: anyio.CapacityLimiter | None = None

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place, from before the first byte is read until the answer is made.

        Raises:
            Full: there is none.
        """
        if self._inside >= self.at_once + self.queue:
            raise Full
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def work(self, job: Callable[[], T]) -> T:
        """What ``job`` returns, called in a thread when its turn comes, in order."""
        import anyio.to_thread

        if self._threads is None:  # it belongs to the loop that runs
            self._threads = anyio.CapacityLimiter(self.at_once)
        return await anyio.to_thread.run_sync(job, limiter=self._threads)
