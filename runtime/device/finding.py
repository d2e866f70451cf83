"""One thing that was looked at: how it stands, what was found, what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

#: How a thing stands, the best first. Only a fault makes ``qmdd doctor`` fail.
OK, NOTE, WARNING, FAULT = STATES = ("ok", "note", "warning", "fault")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of a doctor's report.

    Attributes:
        what: what was looked at.
        state: one of :data:`STATES`.
        found: what was found, in words.
        do: what to do about it, a command where one does it; empty if there is nothing to do.
    """

    what: str
    state: str
    found: str
    do: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)


def worst(findings: Iterable[Finding]) -> str:
    """The worst state among them."""
    return max((finding.state for finding in findings), key=STATES.index, default=OK)
