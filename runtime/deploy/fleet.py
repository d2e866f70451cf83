"""Several devices at once, each with its own result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from ..bundle import Bundle
from ..device.needs import TargetNeeds
from .connection import close_all
from .deployment import deploy
from .hosts import Host
from .options import Options
from .outcome import Outcome

#: Devices at a time.
JOBS = 4

#: Called with the host, what is being done, done, total.
HostReport = Callable[[Host, str, int, int], None]


def deploy_to_all(
    bundle: Bundle,
    hosts: Sequence[Host],
    need: TargetNeeds,
    options: Options,
    *,
    jobs: int = JOBS,
    report: HostReport | None = None,
) -> Iterator[Outcome]:
    """Deploy to each of ``hosts``, ``jobs`` at a time; outcomes as they come.

    One that fails does not stop the others. If the caller stops, all connections are closed, which
    ends what runs on the devices.
    """

    def one(host: Host) -> Outcome:
        say = report
        if say is None:
            return deploy(bundle, host, need, options)
        return deploy(bundle, host, need, options, lambda *told: say(host, *told))

    if len(hosts) == 1:
        yield one(hosts[0])
        return
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = [pool.submit(one, host) for host in hosts]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BaseException:
            for future in waiting:
                future.cancel()
            close_all()
            raise
