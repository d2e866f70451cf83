"""Folders listed in order with bounded memory, however many files lie in them."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

#: Names of one folder that are held at a time. A larger folder is read again for each further part:
#: 0.2 s for 200,000 files, next to nothing beside what is then done with that many.
PART = 1 << 16
#: Linux's PATH_MAX.
_LONGEST = 4096

Keep = Callable[["os.DirEntry[str]"], bool]


def sorted_names(folder: str, keep: Keep, part: int = PART) -> Iterator[str]:
    """Names in ``folder`` for which ``keep`` holds, in order; at most ``2 * part`` are in memory.

    Raises:
        OSError: the folder cannot be listed (while iterating).
    """
    last: str | None = ""
    while last is not None:
        names, bound = [], None  # of the names that come next, those up to ``bound``
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name > last and (bound is None or name < bound) and keep(entry):
                    names.append(name)
                    if len(names) == 2 * part:
                        names.sort()
                        del names[part:]
                        bound = names[-1]
        names.sort()
        yield from names
        last = None if bound is None else bound


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def walk(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files below ``folder`` that end in one of ``suffixes``: a folder's own, then its folders'.

    Links to files are followed, links to folders are not. A folder that cannot be listed is yielded
    in its place, so that whoever opens it learns what is wrong.
    """

    def wanted(entry: os.DirEntry[str]) -> bool:
        return os.path.splitext(entry.name)[1].lower() in suffixes and not is_folder(entry)

    def below(entry: os.DirEntry[str]) -> bool:
        return is_folder(entry) and not entry.is_symlink()

    for place in _places(str(folder), below):
        try:
            for name in sorted_names(place, wanted):
                yield Path(place, name)
        except OSError:
            yield Path(place)


def _places(top: str, below: Keep) -> Iterator[str]:
    """``top`` and every folder below it, each before its own; the unlistable are not entered."""
    yield top
    open_folders = [(top, sorted_names(top, below))]  # no recursion: paths may be deep
    while open_folders:
        place, names = open_folders[-1]
        try:
            name = next(names, None)
        except OSError:  # whoever reads its files meets the same error
            name = None
        if name is None:
            open_folders.pop()
            continue
        inner = os.path.join(place, name)
        yield inner
        open_folders.append((inner, sorted_names(inner, below)))


def is_pattern(text: str) -> bool:
    """Whether it holds one of ``*``, ``?`` and ``[``; what is too long for a path is no pattern."""
    return len(text) <= _LONGEST and any(sign in text for sign in "*?[")


def matches(pattern: str) -> Iterator[Path]:
    """Paths that match ``pattern``, in order, as a shell would give them.

    ``**`` as a whole part stands for any number of folders (links not followed). Hidden names
    match only a part that begins with a dot.
    """
    root, rest = ("/", pattern.lstrip("/")) if pattern.startswith("/") else ("", pattern)
    parts: list[str] = []
    for part in rest.split("/"):
        if part not in ("", ".") and not (part == "**" and parts[-1:] == ["**"]):
            parts.append(part)
    for found in _matching(root, parts):
        yield Path(found)


def _matching(base: str, parts: list[str]) -> Iterator[str]:
    plain = len(parts)  # of as many plain names as there are, no recursion: there may be thousands
    plain = next((i for i, part in enumerate(parts) if is_pattern(part)), plain)
    if plain:
        base, parts = os.path.join(base, *parts[:plain]), parts[plain:]
        if not os.path.lexists(base):
            return
    if not parts:
        yield base
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        for place in _places(base or ".", _visible_folder):
            shown = "" if not base and place == "." else place.removeprefix("./")
            yield from _matching(shown, rest or ["*"])
    else:
        match = re.compile(fnmatch.translate(first)).match

        def keep(entry: os.DirEntry[str]) -> bool:
            hidden = entry.name.startswith(".") and not first.startswith(".")
            return not hidden and match(entry.name) is not None and (not rest or is_folder(entry))

        try:
            for name in sorted_names(base or ".", keep):
                yield from _matching(os.path.join(base, name), rest)
        except OSError:  # a shell passes over what it cannot list
            return


def _visible_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and is_folder(entry) and not entry.is_symlink()
