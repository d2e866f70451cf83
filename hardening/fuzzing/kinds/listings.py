"""Lists of paths, and folders with files of any name."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..kind import Kind, NotRight, Reader
from ..mutators.plain import mutate_bytes
from ..mutators.words import mutate_words
from ..workshop import Workshop

_MOST = 50


def _paths(_workshop: Workshop) -> list[bytes]:
    return [
        b"a.png\nb c.jpg\r\n\nfolder\nfolder/**/*.png\nclip.mp4\n",
        b"a.png\0b\nc.jpg\0folder\0\xff\xfe.png\0",
    ]


def _inside(path: str) -> bool:
    return not os.path.isabs(path) and ".." not in path.split("/") and "~" not in path


def _read_paths(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.inputs import Input, find_inputs, read_list

    folder = scratch / "folder" / "deep"
    folder.mkdir(parents=True)
    for name in ("x.png", "[y].jpg", "*.webp"):
        (folder / name).touch()

    def read(data: bytes) -> None:
        for null in (False, True):
            listed = list(itertools.islice(read_list(io.BytesIO(data), null=null), _MOST))
            texts = [str(item.path) for item in listed]
            here = [item for item in listed if _inside(str(item.path))]
            with _within(scratch):  # contextlib.chdir is of Python 3.11
                patterns = [text for text in texts if _inside(text) and text != "-"]
                for item in itertools.islice(find_inputs(["-", *patterns], here), 4 * _MOST):
                    if not isinstance(item, Input):
                        raise NotRight(f"{item!r} is no input")

    return read


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _names(_workshop: Workshop) -> list[bytes]:
    return [
        b"alpha/0_real/a.png\0alpha/1_fake/b.jpg\0progan/cat/0_real/c.png\0progan/cat/1_fake/d.png",
        b"0_real/a.png\0001_fake/b.png\0notes.txt\0x.png/y.png\0clip.mp4",
    ]


def _read_names(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.cli.detect import _cells, _print_csv_row, _print_verdict
    from qmdd.cli.output import print_json_line
    from qmdd.runtime.errors import DataError
    from qmdd.runtime.folder import digest, find_outside, scan
    from qmdd.runtime.inputs import find_inputs
    from qmdd.runtime.scan.listing import read_parts, write_listing
    from qmdd.runtime.verdicts import Verdict
    from qmdd.runtime.watching.scan import Scan, suffixes

    tree = scratch / "tree"

    def read(data: bytes) -> None:
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        for name in data.split(b"\0")[:_MOST]:
            text = os.fsdecode(name)
            with contextlib.suppress(OSError, ValueError):
                if text and _inside(text):
                    path = tree / text
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
        found = list(find_inputs([str(tree)]))
        for item in found[:3]:
            for verdict in (
                Verdict(item.path, 0.5, "real"),
                Verdict(item.path, None, None, f"{item.path}: no image"),
            ):
                _print_verdict(verdict)
                print_json_line(verdict.to_dict())
                _print_csv_row(_cells(verdict))
        listing = write_listing(scratch / "inputs", found, 2)
        back = [item.path for item in read_parts(scratch / "inputs", listing.parts)]
        if back != [Path(os.path.abspath(item.path)) for item in found]:
            raise NotRight("a list that comes back as another one")
        list(Scan(tree, suffixes(), 0.0).ready(set(), lambda: True))
        find_outside(tree)
        with contextlib.suppress(DataError):
            digest(tree, scan(tree, shared_reals=True))

    return read


def _mutate_names(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    names = data.split(b"\0")
    at = rng.randrange(len(names))
    change = rng.choice((mutate_bytes, mutate_words))
    names[at] = change(rng, names[at], ())[:300]
    if rng.random() < 0.2:
        names += rng.choice(seeds).split(b"\0")
    return b"\0".join(names)


KINDS = (
    Kind(
        "paths",
        "lists of paths on standard input, and patterns",
        _paths,
        _read_paths,
        (mutate_bytes, mutate_words),
        guided=("qmdd.runtime.inputs", "qmdd.runtime.listing"),
        cases=30_000,
    ),
    Kind(
        "names",
        "folders with files of any name: listed, watched, scanned, as a data set, printed",
        _names,
        _read_names,
        (_mutate_names,),
        cases=10_000,
    ),
)
