"""The device's Python environment for a bundle: made once for each set of wheels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ..errors import DeployError
from .layout import COMPLETE, KEPT_SCRIPTS, LAUNCHER, QUIET, Layout
from .payload import Item
from .work import Work

CONSTRAINTS = "constraints.txt"
#: Seconds for pip on a slow device with a slow network.
TIMEOUT = 3600.0


def environment_key(
    items: Sequence[Item], extras: tuple[str, ...], python: str, system: dict[str, Any]
) -> str:
    """Name of the environment: another one for another Python, system, or set of wheels."""
    told = [python, sorted(extras), system, sorted((item.name, item.sha256) for item in items)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def find_environment(work: Work, key: str) -> str | None:
    """Name of a whole environment there that ``key`` stands for; ``None`` if there is none."""
    for name in reversed(work.connection.ask("list", path=("envs",))["names"]):
        whole = name.partition("-")[0] == key and "." not in name
        if not whole or work.connection.read("envs", name, COMPLETE) is None:
            continue
        # The system's Python, which it is a link to, may have gone with an upgrade.
        if work.connection.ask("usable", path=("envs", name, "bin", "python"))["usable"]:
            return str(name)
    return None


def make_environment(
    work: Work,
    layout: Layout,
    items: Sequence[Item],
    extras: tuple[str, ...],
    *,
    python: str,
    system_packages: bool,
    index: bool,
) -> None:
    """Make the environment out of the objects that the device has.

    Args:
        work: the connection and its log.
        layout: the places.
        items: qmdd's wheel first, then further wheels, and the constraints file if there is one.
        extras: of qmdd that are installed.
        python: that it is made of.
        system_packages: whether it sees the packages of that Python.
        index: whether pip may ask the device's package index.

    Raises:
        DeployError: a program fails there; nothing that is in use was touched.
    """
    key, ask = layout.environment, work.connection.ask
    ask("remove", path=("envs", key))
    ask("link", folder=("envs", f"{key}.wheels"), files={item.name: item.sha256 for item in items})
    work.run(layout.make_env(python, system_packages=system_packages), timeout=TIMEOUT)
    pinned = any(item.name == CONSTRAINTS for item in items)
    install = layout.install(items[0].name, extras, index=index, constraints=pinned)
    try:
        work.run(install, timeout=TIMEOUT, environment=QUIET, folder=layout.wheels)
    except DeployError as error:
        if not index:
            raise
        raise DeployError(
            f"{error}; a device that reaches no package index takes its wheels from --wheels"
        ) from error
    ask("keep_only", folder=("envs", key, "bin"), starts=KEPT_SCRIPTS)
    ask("write", path=("envs", key, "bin", "qmdd"), text=LAUNCHER, mode=0o777)
    ask("remove", path=("envs", f"{key}.wheels"))
    made_of = {item.name: item.sha256 for item in items}
    about = json.dumps({"wheels": made_of, "extras": extras, "python": python}, indent=1)
    ask("write", path=("envs", key, COMPLETE), text=about + "\n")
