"""A table: as CSV beside its figure, as Markdown in the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from qmdd.runtime.files import write_atomically


class Table(NamedTuple):
    """Columns and rows of finished text."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """A Markdown table; the first column to the left, the others to the right."""
        head = [self.columns, ("---", *("---:" for _ in self.columns[1:]))]
        lines = [f"| {' | '.join(row)} |" for row in (*head, *self.rows)]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """RFC 4180, but lines end as everywhere in the project."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        return stream.getvalue()

    def save(self, path: Path) -> None:
        """Write :meth:`csv` to ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.csv().encode())
