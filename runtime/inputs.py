"""What to score: files, folders, patterns and lists of paths, found one after the other."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .images import SUFFIXES
from .listing import is_pattern, matches, walk
from .video import VIDEO_SUFFIXES

#: Names a list of paths on standard input.
STANDARD_INPUT = "-"
#: A path in a list may have this many bytes; a longer line is none (PATH_MAX is 4,096 on Linux).
MAX_PATH_BYTES = 1 << 16
_BLOCK = 1 << 16


class Input(NamedTuple):
    """A file to score, or (with ``error``) what was given and cannot be one."""

    path: Path
    error: str | None = None


def find_inputs(given: Iterable[str], listed: Iterable[Input] = ()) -> Iterator[Input]:
    """The image and video files that ``given`` names, in order, each found when it is asked for.

    A file is itself. A folder is its images and videos, in sorted order, and those of the folders
    below it. A pattern (``*``, ``?``, ``[...]``, ``**``) that is no file's name is what a shell
    would make of it; folders that it matches are searched as well, unless ``**`` has done so. ``-``
    is the paths of ``listed``, which are never patterns.

    A path that does not exist is yielded all the same: opening it says what is wrong.
    """
    for text in given:
        if text == STANDARD_INPUT:
            for item in listed:
                if item.error is None:
                    yield from _files(item.path)
                else:
                    yield item
        elif is_pattern(text) and not os.path.lexists(text):
            yield from _matched(text)
        else:
            yield from _files(Path(text))


def _files(path: Path) -> Iterator[Input]:
    if os.path.isdir(path):  # no error where nobody may look: opening it says that
        yield from map(Input, walk(path, SUFFIXES | VIDEO_SUFFIXES))
    else:
        yield Input(path)


def _matched(pattern: str) -> Iterator[Input]:
    deep = "**" in pattern.split("/")
    count = 0
    for path in matches(pattern):
        count += 1
        if not (deep and os.path.isdir(path)):
            yield from _files(path)
    if not count:
        yield Input(Path(pattern), f"{pattern}: no such file, and none matches it as a pattern")


def read_list(stream: BinaryIO, *, null: bool = False) -> Iterator[Input]:
    """Paths from ``stream``, one a line, or with ``null`` each ended by a NUL byte.

    Each is given as soon as it has been read; empty ones are passed over. What cannot be a path
    comes with an error.
    """
    end = b"\0" if null else b"\n"
    for line, whole in _lines(stream, end):
        text = line if null else line.removesuffix(b"\r")
        if not text:
            continue
        if not whole:
            start = os.fsdecode(text[:80])
            yield Input(Path(start), f"{start}...: longer than {MAX_PATH_BYTES:,} bytes: no path")
        elif b"\0" in text:
            name = os.fsdecode(text.replace(b"\0", b"?")[:80])
            yield Input(Path(name), f"{name}: holds a NUL byte; for such a list add --null")
        else:
            yield Input(Path(os.fsdecode(text)))


def _lines(stream: BinaryIO, end: bytes) -> Iterator[tuple[bytes, bool]]:
    """Lines without their ends, and whether they are whole: of too long a one, its beginning."""
    rest, whole = b"", True
    while block := _read(stream):
        *lines, last = (rest + block).split(end)
        for line in lines:
            yield line, whole and len(line) <= MAX_PATH_BYTES
            whole = True
        if len(last) > MAX_PATH_BYTES:
            last, whole = last[:MAX_PATH_BYTES], False
        rest = last
    if rest:
        yield rest, whole


def _read(stream: BinaryIO) -> bytes:
    """What is there, at least one byte, or nothing at the end.

    By the system's own read: a thread that waits in Python's reader holds a lock that the
    interpreter needs when it ends.
    """
    try:
        number = stream.fileno()
    except (OSError, io.UnsupportedOperation):  # no file behind it
        return stream.read(_BLOCK)
    return os.read(number, _BLOCK)
