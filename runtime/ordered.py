"""Work done by several threads, results in the order of what was given, and bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: Results that may wait, for each thread, while an earlier one takes long.
_AHEAD = 8
#: Seconds that the end waits for a source that does not answer (a list on an idle pipe), and for
#: threads at work (a file on a disk that does not answer). Then they are left to end by themselves.
_PATIENCE, _PATIENCE_AT_WORK = 0.5, 10.0


def ordered(source: Iterable[T], work: Callable[[T], R], threads: int) -> Generator[R, None, None]:
    """Yield ``work(item)`` for each item of ``source``, in order, computed by ``threads`` threads.

    ``source`` is advanced by one of these threads at a time, as far ahead of what has been yielded
    as :data:`_AHEAD` allows: it may be endless. A result is yielded as soon as it and all before it
    are there, also while ``source`` waits for something.

    What ``source`` or ``work`` raises is raised here, at its place in the order, and ends the work.
    Whoever stops iterating early closes the iterator; the threads end with what they have in hand.
    """
    run = _Run(iter(source), work, _AHEAD * threads)
    workers = [threading.Thread(target=run.work_on, daemon=True) for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        yield from run.results()
    finally:
        run.stop()
        _join(workers, run)


def _join(workers: list[threading.Thread], run: _Run[T, R]) -> None:
    """Wait for all threads, but not for ever."""
    started = time.monotonic()
    for worker in workers:
        while worker.is_alive():  # not where it was never started
            patience = _PATIENCE_AT_WORK if run.busy else _PATIENCE
            if time.monotonic() > started + patience:
                return
            worker.join(0.02)


class _Run(Generic[T, R]):
    """What the threads share."""

    def __init__(self, source: Iterator[T], work: Callable[[T], R], ahead: int) -> None:
        self._source, self._work = source, work
        self._free = threading.Semaphore(ahead)
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._done: dict[int, R | _Raised] = {}
        self._taken = 0
        self._ended = False
        #: How many threads are at work on an item.
        self.busy = 0

    def work_on(self) -> None:
        """One thread: take an item, work on it, hand in the result, until there is none left."""
        while True:
            self._free.acquire()
            with self._taking:
                if self._ended:
                    self._free.release()  # wakes the next thread, which ends as well
                    return
                place = self._taken
                try:
                    item = next(self._source)
                except StopIteration:
                    self._end()
                    continue
                except BaseException as error:  # noqa: BLE001 - raised where results are read
                    self._taken += 1
                    self._hand_in(place, _Raised(error))
                    self._end()
                    continue
                self._taken += 1
                with self._changed:
                    self.busy += 1
            result: R | _Raised
            try:
                result = self._work(item)
            except BaseException as error:  # noqa: BLE001 - raised where results are read
                result = _Raised(error)
            del item  # its pixels must not live on while the thread waits
            self._hand_in(place, result)
            with self._changed:
                self.busy -= 1

    def _hand_in(self, place: int, result: R | _Raised) -> None:
        with self._changed:
            self._done[place] = result
            self._changed.notify()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._free.release()

    def results(self) -> Iterator[R]:
        """Results in order; raises what was raised."""
        place = 0
        while True:
            with self._changed:
                while place not in self._done:
                    if self._ended and place >= self._taken:
                        return
                    self._changed.wait()
                result = self._done.pop(place)
            if isinstance(result, _Raised):
                raise result.error
            self._free.release()
            place += 1
            yield result

    def stop(self) -> None:
        """Let no further item be taken."""
        self._end()


class _Raised:
    """An exception in place of a result."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
