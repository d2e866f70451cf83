"""What the kills showed, kept case by case, with the machine and the versions."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from qmdd.runtime.files import write_atomically
from qmdd.runtime.machine import processor

from .kills import Tally

_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "pyarrow", "tensorrt-rtx-cu13-bindings")


class Record:
    """Tallies, in a file if there is one.

    Args:
        path: of the file; what it holds of at least as many kills as are wanted is taken over.
        wanted: kills of each case, by name.
    """

    def __init__(self, path: Path | None, wanted: Mapping[str, int]) -> None:
        self.tallies: list[Tally] = []
        self._path = path
        if path is not None and path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))["cases"]
            known = [Tally(**plain) for plain in held]
            self.tallies = [tally for tally in known if tally.kills >= wanted.get(tally.case, 0)]

    def has(self, case: str) -> bool:
        """Whether the case of that name is done."""
        return any(tally.case == case for tally in self.tallies)

    def add(self, tally: Tally) -> None:
        """Add a case's tally and write the file."""
        self.tallies.append(tally)
        if self._path is not None:
            write_atomically(self._path, json.dumps(self.to_dict(), indent=1).encode() + b"\n")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "measured": datetime.date.today().isoformat(),
            "system": f"{platform.system()} {platform.release()}",
            "processor": f"{processor()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in _PACKAGES},
            "kills": sum(tally.kills for tally in self.tallies),
            "faults": sum(tally.faults for tally in self.tallies),
            "cases": [dataclasses.asdict(tally) for tally in self.tallies],
        }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return None
