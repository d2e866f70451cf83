"""What a device is: the probe's facts, found out there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .connection import Connection
from .hosts import Host


def look(connection: Connection, folder: str | None = None) -> dict[str, Any]:
    """The facts of the device.

    Args:
        connection: to it.
        folder: whose disk is looked at; it need not be there yet.

    Raises:
        DeployError: the connection breaks.
    """
    spec = find_spec("..device.probe", __package__)
    assert spec is not None  # noqa: S101 - it is a file of ours
    assert spec.origin is not None  # noqa: S101
    source = Path(spec.origin).read_text(encoding="utf-8")
    facts: dict[str, Any] = connection.ask("facts", source=source, folder=folder)["facts"]
    return facts


def look_at(
    host: Host, *, python: str = "python3", config: Path | None = None, ask: bool = False
) -> dict[str, Any]:
    """The facts of ``host``, where nothing of qmdd needs to be.

    Raises:
        DeployError: it cannot be reached, or has no Python.
    """
    with Connection(host, python=python, config=config, ask=ask) as connection:
        return look(connection, host.folder)
