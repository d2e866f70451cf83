"""Renames in one step that ``os`` lacks: to a free name only, and two names exchanged (Linux).

Where the system or the file system does not know them, the caller is told and has to do with
``os.replace``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

#: Linux's flags of ``renameat2``.
_NOREPLACE, _EXCHANGE = 1, 2
#: Linux's name for the working folder where a call takes a folder's handle.
_AT_FDCWD = -100
#: What says that the call or the flag is not known here.
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


def exchange(one: Path, other: Path) -> bool:
    """Let two names, both there and on one file system, change places; no moment without either.

    Returns:
        False where that is not possible: nothing was changed then.

    Raises:
        OSError: one of them is not there, or may not be moved.
    """
    return _renameat2(one, other, _EXCHANGE)


def rename_to_free(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``, which must not be there.

    Raises:
        FileExistsError: it is; an empty folder may not be noticed where the system cannot.
        OSError: as ``os.rename``.
    """
    if _renameat2(source, target, _NOREPLACE):
        return
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{target}") from error
        raise


def sync_folder(folder: Path) -> None:
    """Let the names in ``folder`` be on the disk, where its file system can do that at all."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems; what is in the files is synced by itself
        pass
    finally:
        os.close(handle)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    call = None
    if sys.platform == "linux":
        call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    places = (_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target))
    if call(*places, ctypes.c_uint(flag)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), f"{target}")
