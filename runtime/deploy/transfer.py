"""Files on their way to the device's store: only what it lacks, and from where they broke off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..device.judge_machine import ENVIRONMENT
from ..errors import DeployError
from .connection import Connection
from .outcome import Outcome
from .payload import Item


def send(
    connection: Connection,
    items: Sequence[Item],
    outcome: Outcome,
    *,
    free: int,
    fresh: bool,
    report: Callable[[str, int, int], None],
) -> None:
    """Send what the device does not have, and count it in ``outcome``.

    Args:
        connection: to the device, whose folder is open.
        items: all that must be there.
        outcome: takes the bytes that were copied, and those that were there.
        free: bytes that are free there.
        fresh: whether an environment is made after it, which takes room, too.
        report: called with ``("copy", done, total)``.

    Raises:
        DeployError: not enough space (nothing was sent then), or the connection breaks.
    """
    wanted = {item.sha256: item for item in items}
    sizes = {name: item.size for name, item in wanted.items()}
    told: Mapping[str, int] = connection.ask("have", objects=sizes)["have"]
    # More of a file than there is of it, or another file, is nothing that helps.
    have = {name: count for name, count in told.items() if count <= sizes.get(name, -1)}
    total = sum(sizes.values())
    outcome.present = sum(have.values())
    room = total - outcome.present + (ENVIRONMENT if fresh else 0)
    if room > free:
        most = " (most of it for the environment)" if fresh else ""
        raise DeployError(
            f"not enough space there: {room >> 20:,} MiB are needed{most}, {free >> 20:,} MiB are "
            "free"
        )
    done = outcome.present
    for name, item in wanted.items():
        offset = have.get(name, 0)
        if name in have and offset == item.size:
            continue
        with item.open() as source:
            for reached in connection.put(name, item.size, offset, source):
                outcome.copied += reached - offset
                done += reached - offset
                offset = reached
                report("copy", done, total)
        outcome.files += 1
