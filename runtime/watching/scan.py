"""What in the folder is ready to be scored: new or changed, and no longer being written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterator
from importlib.util import find_spec
from pathlib import Path

from ..images import SUFFIXES
from ..listing import walk
from ..video import VIDEO_SUFFIXES
from .found import Found, look_at

Clock = Callable[[], float]


def suffixes() -> frozenset[str]:
    """Of the files that can be scored here: images, and videos if PyAV is installed."""
    return SUFFIXES | VIDEO_SUFFIXES if find_spec("av") is not None else SUFFIXES


class Scan:
    """Looks through a folder again and again; knows which files have come to rest.

    A file is ready when size and time of its last change have stayed the same for ``settle``
    seconds, as seen here: clocks are not compared, so a wrong one does no harm. Of files that are
    done, and of those that wait, only a key is held: memory is bounded by their number alone.

    Args:
        folder: looked through with all folders below it.
        suffixes: of the files that count, in lower case.
        settle: seconds.
        clock: for tests.
    """

    def __init__(
        self,
        folder: Path,
        suffixes: frozenset[str],
        settle: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self.folder = folder
        #: Files in the folder that have not come to rest, as of the last look.
        self.waiting: dict[bytes, float] = {}
        #: Folders below that may not be listed, as of the last look.
        self.closed: set[Path] = set()
        #: Seconds that the last look took, without what was done with the files meanwhile.
        self.took = 0.0
        self.settle = settle
        self._suffixes, self._clock = suffixes, clock

    @property
    def there(self) -> bool:
        """Whether the folder can be listed at all: a disk that is pulled out cannot."""
        try:
            with os.scandir(self.folder):
                return True
        except OSError:
            return False

    def ready(self, done: Container[bytes], step: Callable[[], bool]) -> Iterator[Found]:
        """Files that are ready, in sorted order, each as it is found.

        Args:
            done: keys of those that are not looked for any more.
            step: called for each file; when it gives false, the look ends early.
        """
        before, self.waiting, self.took = self.waiting, {}, 0.0
        self.closed = set()
        started = time.perf_counter()
        for path in walk(self.folder, self._suffixes):
            if not step():
                # What has not been looked at goes on waiting.
                self.waiting = {**before, **self.waiting}
                return
            found = look_at(self.folder, path)
            if found is None:
                if path.is_dir() and path != self.folder:  # in place of the files in it
                    self.closed.add(path)
                continue
            key = found.key
            if key in done:
                continue
            now = self._clock()
            since = before.get(key, now)
            if now - since >= self.settle:
                self.took += time.perf_counter() - started
                yield found
                started = time.perf_counter()
            else:
                self.waiting[key] = since
        self.took += time.perf_counter() - started
