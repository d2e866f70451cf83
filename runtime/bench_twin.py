"""Which bundle a twin belongs to: the full-precision network of the same topology, to compare with.

It is made with torch (:mod:`qmdd.exporter.twin`), and may be timed on a machine that has none. So
the ONNX file says itself, in its metadata, whose twin it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .bundle import Bundle
from .errors import SessionError

#: Key of the file's metadata; the value is :func:`topology` as JSON.
KEY = "qmdd.twin"
#: What time depends on; widths and quantizers are what the twin has not.
_FIELDS = ("arch", "cqb", "representation", "width")


def topology(config: Mapping[str, Any]) -> str:
    """Of a detector's configuration as the manifest has it, what its twin shares."""
    return json.dumps({name: config.get(name) for name in _FIELDS}, sort_keys=True)


def config_of(bundle: Bundle) -> dict[str, Any] | None:
    """The configuration that ``bundle`` was built by; ``None`` of a network in no registry."""
    source = bundle.manifest.get("source")
    if not isinstance(source, dict) or "module" in source:
        return None
    config = source.get("config")
    return config if isinstance(config, dict) else None


def check_twin(metadata: Mapping[str, str], bundle: Bundle, where: str) -> None:
    """Refuse a file that is not ``bundle``'s twin.

    Args:
        metadata: of the ONNX file.
        where: the file, for messages.

    Raises:
        SessionError: it says that it is another network's, or nothing.
    """
    told, config = metadata.get(KEY), config_of(bundle)
    advice = "write it with: qmdd bench BUNDLE --write-twin FILE"
    if told is None:
        raise SessionError(f"{where}: not a twin that qmdd wrote; {advice}")
    wanted = topology(config or {})
    if told != wanted:
        raise SessionError(f"{where}: the twin of {told}, and {bundle.path} is {wanted}; {advice}")
