"""How a bundle is deployed."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Options:
    """How to deploy.

    Attributes:
        python: the device's Python, a name or a path there.
        config: ssh's configuration file in place of the user's own.
        ask: ssh may ask for a password on the terminal.
        patience: seconds to wait for a connection, and for a dead one.
        wheel: qmdd's wheel; ``None``: packed from the qmdd that runs here.
        wheels: a folder of further wheels; pip asks no index then.
        constraints: a file of pinned versions for pip.
        timeout: seconds for building the engine, and for verifying.
        runtime: what runs the bundle there; ``None``: what it was made for.
        side, batch: that an engine is built for there, as ``qmdd build`` takes them.
        bench_seconds: how long to measure; 0 leaves it out.
        remake: make environment and engine anew.
    """

    python: str = "python3"
    config: Path | None = None
    ask: bool = False
    patience: int = 15
    wheel: Path | None = None
    wheels: Path | None = None
    constraints: Path | None = None
    timeout: float = 3600.0
    runtime: str | None = None
    side: str | None = None
    batch: str | None = None
    bench_seconds: float = 10.0
    remake: bool = False
