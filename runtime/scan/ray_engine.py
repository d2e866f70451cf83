"""The parts of a scan on a Ray cluster: actors that hold a detector each, fed by Ray Data.

Ray Data hands parts to the actors as they get free, starts an actor anew that died and gives its
part to another. A part is written under its number, whole or not at all, so one that was done twice
is there once.
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import RuntimeFailure, ScanError, not_installed
from ..machine import usable_cores
from .listing import Part
from .table import Counts
from .work import Work, open_detector, score_parts

#: How often a part is tried again whose worker dies: a file may kill every one.
RETRIES = 3
#: Parts are sent as at most so many blocks.
_MAX_BLOCKS = 10_000
#: Ray's store of objects, where it is started here: what is handed around are numbers.
_STORE = 128 << 20
#: Nothing is reported to Ray's makers.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
#: Seconds that a cluster may take to answer.
_PATIENCE = 10.0
_CRITICAL = logging.CRITICAL + 1


class Scorer:
    """An actor's state: a detector, opened once.

    Args:
        work: what is scanned.
        threads: that it computes with.
    """

    def __init__(self, work: Work, threads: int) -> None:
        self._work, self._detector = work, open_detector(work, threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Score the parts of ``batch`` (columns named as the fields of :class:`Part`)."""
        columns = (batch[name].tolist() for name in Part._fields)
        parts = [Part(*row) for row in zip(*columns, strict=True)]
        found: dict[str, list[int]] = {name: [] for name in ("number", *Counts._fields)}
        for part, counts in score_parts(self._work, self._detector, parts):
            for name, value in zip(found, (part.number, *counts), strict=True):
                found[name].append(value)
        return found


def score_on_ray(
    work: Work,
    parts: Sequence[Part],
    *,
    address: str | None,
    workers: int | None,
    threads: int | None,
) -> Iterator[Counts]:
    """Score ``parts`` on Ray; yields what each holds, in any order.

    Args:
        work: what is scanned; its folders are seen by every node under the same names.
        parts: those to score.
        address: of a cluster, ``HOST:PORT`` or ``auto``; default: one of this machine's own, which
            ends with the scan.
        workers: actors; default: as many as the cluster's cores allow.
        threads: of each actor, and cores that it reserves; default: 1.

    Raises:
        ScanError: no Ray, no cluster, or workers that fail; finished parts are kept.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        missing = not_installed("ray", "ray")
        raise ScanError(
            f"{missing}; where pip finds none for this Python, scan without Ray"
        ) from error

    cores = threads or 1
    wanted = min(workers or max(1, usable_cores() // cores), len(parts))
    _connect(ray, address, wanted * cores)
    try:
        if address is not None:
            wanted = min(workers or len(parts), len(parts), _room(ray, address, cores))
        yield from _scored(ray, work, parts, wanted, cores)
    except ray.exceptions.RayError as error:
        raise _failure(error) from error
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes, where nothing listens."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():  # "auto", or what Ray will refuse at once
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ScanError(f"no Ray cluster at {address}: {error}; start one there") from error


def _room(ray: Any, address: str, cores: int) -> int:
    """How many workers of ``cores`` cores the cluster has room for; more would never start."""
    nodes = (node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    found = sum(int(cpus) // cores for cpus in nodes)
    if not found:
        raise ScanError(
            f"no node of the Ray cluster at {address} has {cores} cores; lower --threads"
        )
    return found


def _connect(ray: Any, address: str | None, cores: int) -> None:
    options: dict[str, Any] = {"address": address}
    if address is not None:
        _check_reachable(address)
    else:
        options = {
            "address": "local",
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": _STORE,
        }
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"no Ray cluster at {address}" if address else "Ray does not start here"
        said = " ".join(str(error).split())[:300]
        hint = "; if it wants a token, set RAY_AUTH_MODE=token" if address else ""
        raise ScanError(f"{where}: {said or type(error).__name__}{hint}") from error


def _scored(
    ray: Any, work: Work, parts: Sequence[Part], workers: int, cores: int
) -> Iterator[Counts]:
    logging.getLogger("ray.data").setLevel(_CRITICAL)  # what fails is raised, and said here
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [part._asdict() for part in parts]
    numbers = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
    with warnings.catch_warnings():
        # Ray 2.64 will take this limit away; without it a part that kills its worker is tried for
        # ever. Hence the bound in pyproject.toml.
        warnings.simplefilter("ignore", DeprecationWarning)
        done = numbers.map_batches(
            Scorer,
            fn_constructor_args=(work, cores),
            batch_size=1,
            num_cpus=cores,
            compute=ray.data.ActorPoolStrategy(size=workers),
            max_task_retries=RETRIES,
        )
    for row in done.iter_rows():
        yield Counts(*(row[name] for name in Counts._fields))


def _failure(error: BaseException) -> ScanError:
    """In one line: our own error from inside a worker, or what Ray says of the worker."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, RuntimeFailure):
            return ScanError(f"a worker fails: {inner}")
        cause = getattr(inner, "cause", None)
        inner = cause if isinstance(cause, BaseException) else inner.__cause__
    return ScanError(
        f"a worker died {RETRIES + 1} times over the same part ({type(error).__name__}): a file "
        "that kills it, or too little memory for so many workers; finished parts are kept, and the "
        "same command goes on"
    )
