"""``scan.json``: what the results in a folder are of, so that nothing else is mixed with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ScanError
from ..files import write_atomically
from ..inputs import Input
from .listing import Listing, write_listing

RECORD, INPUTS, PARTS = "scan.json", "inputs", "parts"
SCHEMA = 1
#: A larger record is none of ours.
MAX_BYTES = 1 << 20
#: What a killed scan may leave of the files that it writes whole.
_LEFT = re.compile(r"\..*\.[0-9a-f]{16}|\.inputs")

_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
_ANEW = "choose another --output, or start anew with --force"


@dataclasses.dataclass(frozen=True)
class Scan:
    """What decides every row of the results; the same again gives the same rows.

    Attributes:
        manifest_sha256: of the bundle's manifest, which vouches for all its files.
        model_sha256: of the model that is run.
        runtime: what runs it.
        threshold: score above which an image is called fake.
        every: of a video, the first of every so many frames is scored.
        part: most inputs of a part.
        files: how many inputs there are.
        inputs_sha256: of their list.
    """

    manifest_sha256: str
    model_sha256: str
    runtime: str
    threshold: float
    every: int
    part: int
    files: int = 0
    inputs_sha256: str = ""

    @property
    def id(self) -> str:
        """One hash of all of it."""
        plain = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()

    def difference(self, other: Scan) -> str | None:
        """In what ``other`` is another scan, in words; ``None`` if it is the same."""
        words = {
            "manifest_sha256": "another bundle",
            "model_sha256": "another model",
            "runtime": "another runtime ({})",
            "threshold": "another threshold ({})",
            "every": "another --every ({})",
            "part": "parts of another size ({})",
            "files": "another collection ({:,} files)",
            "inputs_sha256": "a collection that has changed",
        }
        for name, text in words.items():
            held = getattr(self, name)
            if held != getattr(other, name):
                return text.format(held)
        return None


def open_scan(
    folder: Path, scan: Scan, inputs: Iterable[Input], *, about: dict[str, Any], force: bool
) -> tuple[Scan, Listing]:
    """The scan in ``folder``: the one that is there, if it is the same, or a new one.

    Args:
        folder: exists, and no other process is at it.
        scan: what is to be scanned; its inputs are filled in here.
        inputs: written to the folder, or compared with what was written.
        about: more for people to read in the record.
        force: start anew, whatever scan is there.

    Raises:
        ScanError: another scan is there, or other files, or there is nothing to scan.
        OSError: the folder cannot be written.
    """
    _check_ours(folder)
    held = None if force else _read(folder / RECORD)
    if held is None:
        _clear(folder)
    fresh = folder / f".{INPUTS}"
    try:
        listing = write_listing(fresh, inputs, scan.part)
        if not listing.files:
            raise ScanError("no image or video found")
        filled = dataclasses.replace(scan, files=listing.files, inputs_sha256=listing.sha256)
        difference = None if held is None else held.difference(filled)
        if difference is not None:
            raise ScanError(f"{folder}: holds a scan of {difference}; {_ANEW}")
        fresh.replace(folder / INPUTS)
    finally:
        fresh.unlink(missing_ok=True)
    (folder / PARTS).mkdir(exist_ok=True)
    if held is None:
        plain = {"schema": SCHEMA, **about, "scan": dataclasses.asdict(filled)}
        text = json.dumps(plain, indent=2, sort_keys=True, allow_nan=False)
        write_atomically(folder / RECORD, text.encode() + b"\n")
    return filled, listing


def _check_ours(folder: Path) -> None:
    """Refuse a folder that holds anything that no scan writes."""
    ours = {RECORD, INPUTS, PARTS}
    for entry in folder.iterdir():
        if entry.name not in ours and not _LEFT.fullmatch(entry.name):
            raise ScanError(
                f"{folder}: holds other files ({entry.name}), so it is no folder of results; "
                "choose another --output"
            )


def _clear(folder: Path) -> None:
    """Take away a scan; its record first, so that no half of it is taken for a whole."""
    (folder / RECORD).unlink(missing_ok=True)
    (folder / INPUTS).unlink(missing_ok=True)
    if (folder / PARTS).is_dir():
        shutil.rmtree(folder / PARTS)


def clear_left(folder: Path) -> None:
    """Remove what was being written when an earlier scan was killed."""
    for place in (folder, folder / PARTS):
        for entry in place.iterdir():
            if _LEFT.fullmatch(entry.name):
                entry.unlink(missing_ok=True)


def _read(path: Path) -> Scan | None:
    """The scan of a record, ``None`` if there is no record."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("too large")
        plain = json.loads(data)
        if plain["schema"] != SCHEMA:
            raise ScanError(f"{path}: of another qmdd (schema {plain['schema']}); {_ANEW}")
        held = Scan(**plain["scan"])
        for field in dataclasses.fields(Scan):
            value, wanted = getattr(held, field.name), _KINDS[str(field.type)]
            if type(value) not in wanted:
                raise TypeError(f"{field.name} is {type(value).__name__}")
        return held
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ScanError(f"{path}: no record of a scan; {_ANEW}") from error
