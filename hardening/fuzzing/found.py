"""Faults: kept while a run goes on, one of each sort, and afterwards in the tree as cases.

A case is a file ``found/KIND/NAME.case``, gzip-packed; the test replays all of them. Every one
broke qmdd once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .outcome import Outcome

FOUND = Path(__file__).parent / "found"
SUFFIX = ".case"


class Case(NamedTuple):
    """One case of the tree."""

    kind: str
    name: str
    data: bytes


def cases(folder: Path = FOUND) -> Iterator[Case]:
    """Every case in the tree (or in ``folder``), by kind and name."""
    for path in sorted(folder.glob(f"*/*{SUFFIX}")):
        yield Case(path.parent.name, path.stem, gzip.decompress(path.read_bytes()))


def keep_case(kind: str, name: str, data: bytes, folder: Path = FOUND) -> Path:
    """Write a case; the same bytes for the same input."""
    place = folder / kind
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{name}{SUFFIX}"
    path.write_bytes(gzip.compress(data, 9, mtime=0))
    return path


def keep_fault(folder: Path, kind: str, outcome: Outcome, data: bytes) -> None:
    """Keep the first input of each sort of fault, and what is known of it."""
    sort = hashlib.sha256(f"{outcome.name} {outcome.where}".encode()).hexdigest()[:10]
    about = folder / kind / f"{sort}.json"
    if about.exists():
        return
    keep_case(kind, sort, data, folder)
    plain = {"kind": kind, "case": sort, **outcome._asdict()}
    about.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def faults(folder: Path) -> list[dict[str, str]]:
    """What :func:`keep_fault` kept, without the details."""
    told = (
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/*.json"))
    )
    return [{key: one[key] for key in ("kind", "case", "name", "where")} for one in told]
