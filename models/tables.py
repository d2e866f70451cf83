"""Tables of text, for the terminal and for the documentation alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text, the first column to the left, numbers in the others; sentences below."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str] = dataclasses.field(default_factory=list)

    def markdown(self) -> str:
        """As GitHub shows it, without the title; notes as a list.

        >>> print(Table("", ("a", "b"), [("x", "1")]).markdown())
        | a | b |
        |---|---:|
        | x | 1 |
        """
        lines = [_line(self.columns), "|---" + "|---:" * (len(self.columns) - 1) + "|"]
        lines += [_line(row) for row in self.rows]
        if self.notes:
            lines += ["", *(f"* {note}" for note in self.notes)]
        return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def giga(count: float, digits: int = 3) -> str:
    """``count`` in G (10^9).

    >>> giga(2_670_723_584)
    '2.671'
    """
    return f"{count / 1e9:.{digits}f}"


def mega(count: float, digits: int = 2) -> str:
    """``count`` in M or MB (10^6)."""
    return f"{count / 1e6:.{digits}f}"
