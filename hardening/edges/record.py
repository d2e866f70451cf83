"""Results of long runs: rows as they come, then one file with the machine and the versions."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from qmdd.runtime.files import write_atomically
from qmdd.runtime.machine import processor

#: Packages that results depend on.
PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


class Rows:
    """Rows of an unfinished run, one JSON object a line; what is there is not done again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def find(self, **key: object) -> dict[str, Any] | None:
        """The row that holds ``key``, if that is done."""
        return next((row for row in self.rows if key.items() <= row.items()), None)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row; it is on disk when this returns."""
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
            log.flush()
            os.fsync(log.fileno())


def write_record(path: Path, result: dict[str, Any], packages: Sequence[str] = PACKAGES) -> None:
    """Write ``result`` with the day, the processor and the versions that it was measured with."""
    data = {
        "label": "measured",
        "measured": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {package: metadata.version(package).split("+")[0] for package in packages},
        **result,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(data, indent=2) + "\n").encode())
