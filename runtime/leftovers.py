"""Hidden work files and folders: made, held by a lock while they are worked on, removed if dead.

What is being written lies under a hidden name beside its place. A process that is killed leaves it
there. Whoever writes it holds a lock on it, which ends with the process: what is not locked belongs
to nobody, and the next one that writes to the same place removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from pathlib import Path

#: Most of a name that is repeated in the hidden one: names have a longest length.
_KEPT = 40
#: How it ends.
_DIGITS = 16
_TOKEN = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")


def hidden_name(name: str) -> str:
    """A fresh hidden name for the work on ``name``."""
    return f".{name[:_KEPT]}.{secrets.token_hex(_DIGITS // 2)}"


def make_file(target: Path) -> tuple[Path, int]:
    """A fresh file beside ``target`` and its handle, locked; the user's umask says who may read.

    Raises:
        OSError: no file can be made there.
    """
    while True:
        work = target.parent / hidden_name(target.name)
        # By os.open, and not by tempfile, whose files nobody else may read.
        handle = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if _held(handle, work):
            return work, handle
        os.close(handle)


def make_folder(target: Path, where: Path) -> tuple[Path, int]:
    """A fresh folder in ``where`` for what is to become ``target``, and its handle, locked.

    Raises:
        OSError: no folder can be made there.
    """
    while True:
        work = where / hidden_name(target.name)
        work.mkdir()
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _held(handle, work):
                return work, handle
            os.close(handle)


def _held(handle: int, work: Path) -> bool:
    """Lock what was just made; false if it was taken for a dead one's before that."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: then nobody removes anything either
        return True
    try:
        return os.path.samestat(os.stat(work), os.fstat(handle))
    except FileNotFoundError:
        return False


def remove_dead(name: str, where: Path) -> None:
    """Remove what killed processes left in ``where`` of their work on ``name``."""
    start = hidden_name(name)[:-_DIGITS]
    try:
        found = [entry for entry in os.listdir(where) if entry.startswith(start)]
    except OSError:
        return
    for entry in found:
        if not _TOKEN.fullmatch(entry[len(start) :]):
            continue
        with contextlib.suppress(OSError):
            _remove_if_dead(where / entry)


def _remove_if_dead(path: Path) -> None:
    # Not followed, should it be a link, and not waited for, should it be a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)
