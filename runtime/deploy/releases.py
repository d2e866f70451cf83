"""The releases on a device: which is current, which was before, and what may go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..bundle import MANIFEST
from ..errors import DeployError
from .connection import Connection
from .hosts import Host

Ask = Callable[..., dict[str, Any]]


def current_release(ask: Ask) -> str | None:
    """Id of the release that runs, ``None`` before the first deployment."""
    found = ask("releases")["current"]
    return None if found is None else str(found)


def read_release(ask: Ask, release: str) -> dict[str, Any] | None:
    """What was noted when ``release`` was deployed; ``None`` if it never was, or is damaged."""
    found = ask("releases")["releases"].get(release)
    return found if isinstance(found, dict) else None


def damaged(ask: Ask, release: str) -> list[str]:
    """Names of the files of a release's bundle that are missing, or not what its manifest says."""
    folder = ("releases", release, "bundle")
    wrong = ask("manifest", folder=folder, name=MANIFEST)["wrong"]
    return [str(name) for name in wrong]


def prune(ask: Ask, keep: int, objects: Sequence[str]) -> None:
    """Remove releases that were never finished and all but ``keep`` beside the current one.

    Then environments and files that none of the others needs, but for ``objects``: file systems
    without links hold those of the current release only there. The lock is ours: nobody else is
    making any of these.
    """
    told = ask("releases")
    known, current = told["releases"], told["current"]
    chain: list[str] = []
    place = current
    while place in known and place not in chain and len(chain) <= keep:
        chain.append(place)
        place = (known[place] or {}).get("previous")
    for release in known:
        if release not in chain:
            ask("remove", path=("releases", release))
    used = {str((known[release] or {}).get("environment")) for release in chain}
    for name in ask("list", path=("envs",))["names"]:
        if name not in used:
            ask("remove", path=("envs", name))
    ask("sweep", keep=list(objects))


@dataclasses.dataclass(frozen=True)
class Rollback:
    """What :func:`rollback` did.

    Attributes:
        host: the device.
        release: what runs now.
        instead_of: what ran before.
        told: what was noted when ``release`` was deployed.
    """

    host: Host
    release: str
    instead_of: str
    told: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**dataclasses.asdict(self), "host": dataclasses.asdict(self.host)}


def history(
    host: Host, *, python: str = "python3", config: Path | None = None, ask: bool = False
) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """The current release's id and what was noted of each finished release on ``host``, by id.

    Raises:
        DeployError: it cannot be reached, or nothing was ever deployed there.
    """
    with Connection(host, python=python, config=config, ask=ask) as connection:
        connection.ask("open", folder=host.folder, create=False)
        told = connection.ask("releases")
    return told["current"], {k: v for k, v in told["releases"].items() if isinstance(v, dict)}


def rollback(
    host: Host,
    *,
    to: str | None = None,
    python: str = "python3",
    config: Path | None = None,
    ask: bool = False,
) -> Rollback:
    """Return to the release before the current one, or to release ``to``, in one step.

    Every file of it is compared with its hash first.

    Raises:
        DeployError: it cannot be reached, there is no such release, or it is damaged.
    """
    with Connection(host, python=python, config=config, ask=ask) as connection:
        connection.ask("open", folder=host.folder, create=False)
        told = connection.ask("releases")
        known, current = told["releases"], told["current"]
        if current is None:
            raise DeployError(f"{host.label}: nothing was deployed there")
        target = to or (known.get(current) or {}).get("previous")
        if target is None:
            raise DeployError(f"{host.label}: there is no release before {current}")
        if not isinstance(known.get(target), dict):
            there = ", ".join(name for name, about in known.items() if about) or "none"
            raise DeployError(f"{host.label}: has no release {target}; there are: {there}")
        if target == current:
            raise DeployError(f"{host.label}: {target} is the current release already")
        _check(connection, host, target, known[target])
        connection.ask("point", path=("current",), target=f"releases/{target}")
    return Rollback(host, target, current, known[target])


def _check(connection: Connection, host: Host, release: str, about: dict[str, Any]) -> None:
    """Refuse a release whose files are not what they were."""
    wrong = damaged(connection.ask, release)
    environment = ("envs", str(about.get("environment")), "complete.json")
    if connection.read(*environment) is None:
        wrong = [*wrong, "/".join(environment)]
    if wrong:
        raise DeployError(
            f"{host.label}: release {release} is damaged ({wrong[0]} is missing or changed); "
            "nothing was switched, deploy again"
        )
