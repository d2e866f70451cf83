"""The moments of a command: the instants between two of its changes to the file system.

Python tells of each (``sys.addaudithook``) just before it is made. What a process that is killed
there leaves is what lies on the disk after the change before it, so to be killed at each moment in
turn is to be killed between any two changes. Writes within a file come between two moments; those
are hit by kills at random times.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

#: Events that change the file system, and the number of their arguments that are paths.
_CHANGES = {
    "os.link": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.truncate": 1,
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
#: A folder is opened to be synced, after its names have changed.
_FOLDER = getattr(os, "O_DIRECTORY", 0)


class Moments:
    """Counts the moments of this process below ``root`` from now on.

    Args:
        root: a folder, absolute.
        kill_at: the number of the moment (the first is 1) at which the process is killed.
    """

    def __init__(self, root: str, kill_at: int | None = None) -> None:
        self.count = 0
        self._root, self._at, self._process = root, kill_at, os.getpid()
        sys.addaudithook(self._hear)
        sync = os.fsync

        def fsync(handle: Any) -> None:
            self._pass()
            sync(handle)

        os.fsync = fsync  # type: ignore[assignment]  # it raises no audit event

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            if any(self._is_below(path) for path in arguments[: _CHANGES[event]]):
                self._pass()
        elif event == "open":
            path, _, flags = arguments
            if flags & (_WRITES | _FOLDER) and self._is_below(path):
                self._pass()
        elif event == "ctypes.dlopen" and arguments[0] is None:
            self._pass()  # renameat2 comes next, of which Python tells nothing

    def _is_below(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        text = os.fsdecode(path)
        return not os.path.isabs(text) or text.startswith(self._root)

    def _pass(self) -> None:
        if os.getpid() != self._process:  # what it has started
            return
        self.count += 1
        if self.count == self._at:
            os.kill(self._process, signal.SIGKILL)
