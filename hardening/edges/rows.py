"""Rows of an unfinished run; what is done is not done again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: Packages that results here depend on.
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
