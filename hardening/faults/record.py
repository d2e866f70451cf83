"""What was found, kept piece by piece, with the machine and the versions."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from qmdd.runtime.files import write_atomically
from qmdd.runtime.machine import processor

from .crowd import Crowd
from .kills import Tally
from .starve import Starved
from .swap import Swapped

_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "pyarrow", "tensorrt-rtx-cu13-bindings")
Found = Tally | Starved | Swapped | Crowd
#: Where each kind of finding stands, and what tells one from another.
_PLACES: dict[type[Found], tuple[str, tuple[str, ...]]] = {
    Tally: ("kills", ("case",)),
    Starved: ("starved", ("case", "way")),
    Swapped: ("replaced", ("command",)),
    Crowd: ("crowds", ("way",)),
}


class Record:
    """Findings, in a file if there is one; what it holds already is taken over.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path | None) -> None:
        self.found: list[Found] = []
        self._path = path
        if path is not None and path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            for kind, (name, _) in _PLACES.items():
                self.found += [kind(**plain) for plain in held.get(name, ())]

    def get(self, kind: type[Found], *names: str) -> Found | None:
        """What was found of that kind and name."""
        return next((f for f in self.found if type(f) is kind and _names(f) == names), None)

    def add(self, found: Found) -> None:
        """Add a finding, in place of one of the same name, and write the file."""
        others = [f for f in self.found if (type(f), _names(f)) != (type(found), _names(found))]
        self.found = [*others, found]
        if self._path is not None:
            write_atomically(self._path, json.dumps(self.to_dict(), indent=1).encode() + b"\n")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        kills = [tally for tally in self.found if isinstance(tally, Tally)]
        return {
            "measured": datetime.date.today().isoformat(),
            "system": f"{platform.system()} {platform.release()}",
            "processor": f"{processor()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in _PACKAGES},
            "killed": sum(tally.kills for tally in kills),
            "faults": faults(self.found),
            **{
                name: [dataclasses.asdict(f) for f in self.found if type(f) is kind]
                for kind, (name, _) in _PLACES.items()
            },
        }


def faults(found: list[Found]) -> int:
    """How much of it should not be."""
    count = 0
    for one in found:
        if isinstance(one, Tally):
            count += one.faults
        elif isinstance(one, Starved):
            count += len(one.faults)
        elif isinstance(one, Swapped):
            count += one.mixed
        else:
            count += one.asked - one.right
    return count


def _names(found: Found) -> tuple[str, ...]:
    return tuple(str(getattr(found, name)) for name in _PLACES[type(found)][1])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return None
