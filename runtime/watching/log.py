"""The file of verdicts, one JSON object a line: the result, and the memory of what has been done.

A line is there whole and on the disk, or it is not there: it is written in one piece and synced,
what a crash or a full disk left of one is cut off. Whoever starts again reads which files are done
from the lines themselves, so a file cannot be done and forgotten, or remembered and not done.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import RuntimeFailure
from .found import Found, key_of

#: No line of ours is longer: a path has 4,096 bytes at most, its error message as many again.
MAX_LINE = 1 << 17
#: How a line of ours begins.
_BEGINS = b'{"time": '
#: Of a compressed older log, no more than this is read.
_MOST_UNPACKED = 1 << 30


class LogError(RuntimeFailure):
    """An output that cannot be the log of ``qmdd watch``."""


class VerdictLog:
    """The log at ``path``, open for appending, and the keys of all files that it tells of.

    Older logs beside it (``verdicts.jsonl.1``, ``verdicts.jsonl-20260131``, also ``.gz``), which a
    rotation leaves, are read as well.

    Args:
        path: the file; made if it is not there.

    Raises:
        LogError: it is no regular file, holds something else, or another process writes it.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Of files that are done, each by its :attr:`~.found.Found.key`.
        self.done: set[bytes] = set()
        #: Lines that are not ours, or damaged: passed over.
        self.odd = 0
        self._file = self._open()
        try:
            for old in _rotated(path):
                self._learn(old)
            self._learn(path)
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> IO[bytes]:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise LogError(f"{self.path}: not a regular file; choose another --output")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise LogError(
                f"{self.path}: another process writes it (a second qmdd watch?); stop that one, or "
                "choose another --output"
            ) from error
        except BaseException:
            os.close(handle)
            raise
        file = open(handle, "r+b", buffering=0)  # noqa: SIM115 - closed by close
        try:
            _repair(self.path, file)
            with contextlib.suppress(OSError):  # some file systems cannot
                _sync_folder(self.path.parent)
        except BaseException:
            file.close()
            raise
        return file

    def _learn(self, path: Path) -> None:
        for line in _lines(path):
            key = _key_in(line)
            if key is None:
                self.odd += 1
            else:
                self.done.add(key)

    def append(self, found: Found, line: dict[str, Any]) -> None:
        """Write ``line`` on ``found``, synced, and remember the file.

        Raises:
            OSError: it could not be written (a full disk). The log is as before, and so is what is
                remembered: try again.
        """
        held = {**line, "path": found.name, "size": found.size, "mtime_ns": found.mtime_ns}
        data = json.dumps(held, allow_nan=False).encode() + b"\n"
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(data) != len(data):
                # What a short write means; the next one would have said so.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), before)
            raise
        self.done.add(found.key)

    def reopen(self) -> None:
        """Close the file and open what is at its path now: after a rotation, a new one.

        Raises:
            LogError, OSError: as when it was made; the old file is then still open.
        """
        if not self._is_same():
            new = self._open()
            self._file.close()
            self._file = new

    def _is_same(self) -> bool:
        """Whether the path still leads to the open file, whose own lock another one would meet."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; its lock ends. Leaving a ``with`` block does the same."""
        self._file.close()

    def __enter__(self) -> VerdictLog:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()


def _repair(path: Path, file: IO[bytes]) -> None:
    """Cut off what a crash left of a last line: its file is then not done.

    Raises:
        LogError: the file holds something else, which is left alone.
    """
    other = LogError(f"{path}: holds something else than verdicts; choose another --output")
    file.seek(0)
    first = _read_all(file, MAX_LINE).partition(b"\n")
    if first[1] and _key_in(first[0]) is None:
        raise other
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - MAX_LINE)
    file.seek(start)
    tail = _read_all(file, size - start)
    end = tail.rfind(b"\n") + 1
    torn = tail[end:]
    if not torn:
        return
    # A file system may put zeros where it lost what was written.
    if (start and not end) or not (torn.startswith(_BEGINS) or not torn.strip(_BEGINS + b"\0")):
        raise other
    os.ftruncate(file.fileno(), start + end)


def _sync_folder(folder: Path) -> None:
    """Let the name of a new file be on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rotated(path: Path) -> Iterator[Path]:
    """Logs beside ``path`` that a rotation left: its name and a number or date, perhaps packed."""
    name, stem, suffix = (re.escape(text) for text in (path.name, path.stem, path.suffix))
    known = re.compile(rf"({name}[.-][\d.-]*\d|{stem}[.-][\d.-]*\d{suffix})(\.gz)?")
    for entry in sorted(path.parent.iterdir()):
        if known.fullmatch(entry.name) and entry != path and entry.is_file():
            yield entry


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a log; of a damaged packed one those that can be read."""
    packed, read = path.suffix == ".gz", 0
    with (
        contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile),
        gzip.open(path) if packed else path.open("rb") as file,
    ):
        while line := file.readline(MAX_LINE):
            read += len(line)
            if packed and read > _MOST_UNPACKED:
                return
            yield line


def _key_in(line: bytes) -> bytes | None:
    """What a line of ours tells of, ``None`` if it is not one."""
    try:
        told = json.loads(line)
        name, size, mtime = told["path"], told["size"], told["mtime_ns"]
        if isinstance(name, str) and type(size) is int and type(mtime) is int:
            return key_of(name, size, mtime)
    except (ValueError, KeyError, TypeError, RecursionError):  # UnicodeError is a ValueError
        pass
    return None


def _read_all(file: IO[bytes], count: int) -> bytes:
    parts = []
    while count > 0 and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
