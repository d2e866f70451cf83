"""What a device answers, held to its form: another program may be at the other end, or another man.

Nothing that comes from there is used before it has been looked at here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DeployError

_AGAIN = "deploy again; if it stays, look at who answers there"


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _sizes(value: object) -> bool:
    return isinstance(value, dict) and all(map(_size, value.values()))


def _table(value: object) -> bool:
    return isinstance(value, dict)


def _exit_code(value: object) -> bool:
    return value is None or (type(value) is int and abs(value) < 1 << 31)


#: By what is asked: what the answer holds, and what it may be. Other requests are answered with
#: nothing.
_FORMS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "open": {"root": _text, "free": _size},
    "releases": {"releases": _table, "current": _text_or_none},
    "have": {"have": _sizes},
    "list": {"names": _texts},
    "read": {"data": _text_or_none},
    "manifest": {"wrong": _texts},
    "facts": {"facts": _table},
    "usable": {"usable": lambda value: isinstance(value, bool)},
    "run": {"rc": _exit_code, "out": _text},
}


def checked(do: str, found: dict[str, Any]) -> dict[str, Any]:
    """``found``, if it is an answer to ``do``.

    Of ``releases``, a note that is not one becomes ``None``, as where none can be read.

    Raises:
        DeployError: it is not; does not name the host.
    """
    for key, fits in _FORMS.get(do, {}).items():
        if key not in found or not fits(found[key]):
            raise DeployError(f"what it answers to {do!r} holds no {key} that could be; {_AGAIN}")
    if do == "releases":
        found = {**found, "releases": {k: _note(v) for k, v in found["releases"].items()}}
    return found


def _note(held: object) -> dict[str, Any] | None:
    """What was noted of a release, its links to others texts; ``None`` if it is no such note."""
    if not isinstance(held, dict):
        return None
    links = (held.get("previous"), held.get("environment"))
    return held if all(map(_text_or_none, links)) else None


def bytes_of(data: str | None) -> bytes | None:
    """A small file's bytes from base64; ``None`` if there is no such file.

    Raises:
        DeployError: no base64; does not name the host.
    """
    try:
        return None if data is None else base64.b64decode(data, validate=True)
    except ValueError as error:
        raise DeployError(f"a file's bytes arrive damaged; {_AGAIN}") from error


def error_number(found: Mapping[str, Any]) -> int:
    """The number of a system's error there, 0 where none is told."""
    told = found.get("errno")
    return told if type(told) is int and 0 <= told < 1 << 31 else 0
