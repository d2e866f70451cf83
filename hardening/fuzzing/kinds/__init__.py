"""Every kind of input, by name. Nothing of qmdd is imported before a reader is made."""

from __future__ import annotations

from ..kind import Kind
from . import (
    bundles,
    checkpoints,
    commands,
    configuration,
    devices,
    foreign,
    listings,
    media,
    models,
    records,
    requests,
)

_ALL: tuple[Kind, ...] = (
    *configuration.KINDS,
    *records.KINDS,
    *bundles.KINDS,
    *checkpoints.KINDS,
    *foreign.KINDS,
    *devices.KINDS,
    *listings.KINDS,
    *requests.KINDS,
    *media.KINDS,
    *models.KINDS,
    *commands.KINDS,
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
