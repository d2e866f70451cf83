"""A file of the watched folder in one state of it: scored once, and again when it has changed."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """A file as it was seen.

    Attributes:
        path: where it lies.
        name: the same from the watched folder on, with ``/``.
        size: in bytes.
        mtime_ns: time of its last change, nanoseconds since 1970, by its own file system.
    """

    path: Path
    name: str
    size: int
    mtime_ns: int

    @property
    def key(self) -> bytes:
        """16 bytes that stand for the file in this state: what is remembered of it."""
        return key_of(self.name, self.size, self.mtime_ns)


def key_of(name: str, size: int, mtime_ns: int) -> bytes:
    """See :attr:`Found.key`.

    Raises:
        UnicodeEncodeError: ``name`` is no file's name.
    """
    text = f"{size} {mtime_ns} ".encode() + os.fsencode(name)
    return hashlib.blake2b(text, digest_size=16).digest()


def look_at(folder: Path, path: Path) -> Found | None:
    """The file below ``folder`` as it is now; ``None`` if it is gone, or not a regular file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    name = str(path).removeprefix(os.path.join(folder, ""))
    return Found(path, name, status.st_size, status.st_mtime_ns)
