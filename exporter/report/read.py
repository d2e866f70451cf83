"""Files that lie beside a bundle, and numbers in them, read without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...runtime.device.facts import Facts
from ..errors import ReportError

#: A larger JSON file is refused.
MAX_BYTES = 4 << 20


def whole(facts: Facts, section: str, *keys: str) -> int | None:
    """The whole number at that place, ``None`` if there is none."""
    found = facts.number(section, *keys)
    return int(found) if found is not None and found == int(found) else None


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most :data:`MAX_BYTES`.

    Raises:
        ReportError: unreadable, too large, or no such object.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise ReportError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so not one of ours")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ReportError(f"{path}: must hold a JSON object")
    return found
