"""The inputs of a scan, written down once: one file of paths that every part is a slice of.

A record is two fields, each ended by a NUL byte: the path's own bytes, whatever they are, and why
it cannot be scored (empty for a file that is to be opened). So a list of a million paths takes some
space on disk and no memory, and a worker reads just its part.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import ScanError
from ..inputs import Input

_BLOCK = 1 << 16


class Part(NamedTuple):
    """A slice of the list: which inputs, and where they stand in the file.

    Attributes:
        number: of the part, from 0.
        first: number of its first input, from 0.
        files: how many inputs it has.
        start, end: bytes of the file.
    """

    number: int
    first: int
    files: int
    start: int
    end: int


class Listing(NamedTuple):
    """A whole list.

    Attributes:
        files: how many inputs it has.
        sha256: of its file.
        parts: in order.
    """

    files: int
    sha256: str
    parts: list[Part]


def write_listing(path: Path, inputs: Iterable[Input], size: int) -> Listing:
    """Write ``inputs`` to ``path``, and cut them into parts of ``size``.

    Relative paths are taken from the current folder, and written with it: whoever reads the list
    may run elsewhere.

    Raises:
        OSError: ``path`` cannot be written.
    """
    state = hashlib.sha256()
    parts: list[Part] = []
    here = os.fsencode(os.getcwd())
    count = place = first = start = 0
    with open(path, "wb") as stream:
        for item in inputs:
            given = os.fsencode(item.path)
            why = os.fsencode(item.error or "").replace(b"\0", b"?")
            record = os.path.join(here, given) + b"\0" + why + b"\0"
            stream.write(record)
            state.update(record)
            count, place = count + 1, place + len(record)
            if count - first == size:
                parts.append(Part(len(parts), first, size, start, place))
                first, start = count, place
        if count > first:
            parts.append(Part(len(parts), first, count - first, start, place))
        stream.flush()
        os.fsync(stream.fileno())
    return Listing(count, state.hexdigest(), parts)


def read_part(path: Path, part: Part) -> list[Input]:
    """The inputs of ``part``.

    Raises:
        ScanError: the file does not hold them. OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        stream.seek(part.start)
        data = stream.read(part.end - part.start)
    fields = data.split(b"\0")
    if len(data) != part.end - part.start or len(fields) != 2 * part.files + 1 or fields[-1]:
        raise ScanError(f"{path}: damaged; start the scan anew with --force")
    return [
        Input(Path(os.fsdecode(fields[i])), os.fsdecode(fields[i + 1]) or None)
        for i in range(0, 2 * part.files, 2)
    ]


def read_parts(path: Path, parts: Iterable[Part]) -> Iterator[Input]:
    """The inputs of ``parts``, one part after the other in memory.

    Raises:
        ScanError, OSError: as :func:`read_part`.
    """
    for part in parts:
        yield from read_part(path, part)
