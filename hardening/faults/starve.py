"""The same cases, starved and interrupted: an error in one line, and the old state or the new one.

``full``: a file system in memory that is too small (where it may be mounted; else files that may
not grow);
``read-only``: it may not be written; ``memory``: the address space is limited; ``SIGINT`` and
``SIGTERM`` at random times; ``stdout full`` and ``stdout closed``: nobody takes what is printed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .case import Case, hidden, tree
from .child import Ended, run
from .kills import Unbroken, said

WAYS = ("full", "read-only", "memory", "SIGINT", "SIGTERM", "stdout full", "stdout closed")
#: MiB of address space that a command gets beside what is used when it begins.
_MEMORY = (4, 64, 1, 16, 256, 2, 8, 32, 128, 512)
#: Of what it writes, how much there is room for.
_SHARES = (0.5, 0.9, 0.1, 0.7, 0.3)


@dataclasses.dataclass
class Starved:
    """What one way of starving did to one case.

    Attributes:
        case, way: which.
        runs: how many.
        ended: how often the command ended with each exit code.
        faults: a line for each run that did not end as it should.
    """

    case: str
    way: str
    runs: int = 0
    ended: dict[str, int] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)


def starve(
    case: Case, world: Path, place: Path, runs: int, ways: tuple[str, ...] = WAYS, seed: int = 0
) -> list[Starved]:
    """Run ``case`` in each of ``ways``, ``runs`` times where a moment is drawn."""
    unbroken = Unbroken(case, world, place)
    draw = random.Random(seed)  # noqa: S311 - moments to interrupt at
    found = []
    for way in ways:
        result = Starved(case.name, way)
        for how, attempt in _attempts(way, case, world, place, unbroken, draw, runs):
            ended = attempt()
            result.runs += 1
            code = str(ended.code)
            result.ended[code] = result.ended.get(code, 0) + 1
            fault = _fault(way, unbroken, ended)
            if fault:
                result.faults.append(f"{how}: exit code {code}: {fault}")
        found.append(result)
    return found


Attempt = tuple[str, Callable[[], Ended]]


def _attempts(
    way: str,
    case: Case,
    world: Path,
    place: Path,
    unbroken: Unbroken,
    draw: random.Random,
    runs: int,
) -> Iterator[Attempt]:
    def go(**options: object) -> Ended:
        return run(case.arguments, place, environment=case.environment, **options)  # type: ignore[arg-type]

    if way in ("SIGINT", "SIGTERM"):
        for _ in range(runs):
            case.lay_out(world, place)
            after = draw.uniform(0.02, unbroken.seconds)
            number = getattr(signal, way)
            yield f"{after:.3f} s", lambda n=number, a=after: go(number=n, kill_after=a)  # type: ignore[misc]
    elif way == "memory":
        for more in _MEMORY[:runs]:
            case.lay_out(world, place)
            yield f"{more} MiB", lambda m=more << 20: go(before=lambda: _limit_memory(m))  # type: ignore[misc]
    elif way.startswith("stdout"):
        case.lay_out(world, place)
        with _deaf(way) as handle:
            yield way, lambda: go(stdout=handle)
    elif _can_mount(place):
        for share in _SHARES[:runs] if way == "full" else (0.0,):
            with _mounted(place, case, world, int(share * unbroken.size), way == "read-only"):
                yield f"room for {share:.0%} of {unbroken.size:,} bytes", go
    elif way == "full":
        for share in _SHARES[:runs]:
            case.lay_out(world, place)
            most = int(share * unbroken.size)
            yield f"files of {most:,} bytes", lambda m=most: go(before=lambda: _limit_files(m))  # type: ignore[misc]


def _can_mount(place: Path) -> bool:
    """Whether this process may mount a file system of its own."""
    if os.geteuid():
        return False
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "tmpfs", os.fspath(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", os.fspath(place)], check=True)
    return True


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_files(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@contextlib.contextmanager
def _deaf(way: str) -> Iterator[int]:
    """A descriptor that takes nothing."""
    if way == "stdout full":
        handle = os.open("/dev/full", os.O_WRONLY)
    else:
        receiver, handle = os.pipe()
        os.close(receiver)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _mounted(place: Path, case: Case, world: Path, more: int, read_only: bool) -> Iterator[None]:
    """``place`` laid out on a file system of its own, with ``more`` bytes left."""
    case.lay_out(world, place)
    kept = place.with_name("kept")
    subprocess.run(["mv", "--", place, kept], check=True)
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", os.fspath(place)]
    subprocess.run(mount, check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", place], check=True)
        stat = os.statvfs(place)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        again = f"remount,size={used + more}" + (",ro" if read_only else "")
        subprocess.run(["mount", "-o", again, place], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        subprocess.run(["rm", "-rf", "--", kept], check=True)


def _fault(way: str, unbroken: Unbroken, ended: Ended) -> str:
    """What is wrong with how a run ended and what it left; empty if nothing is."""
    place, case = unbroken.place, unbroken.case
    lines = said(place)
    if any("Traceback" in line for line in lines):
        return f"a traceback: {lines[-1]}"
    wanted = {"SIGINT": {0, 130}, "SIGTERM": {0, 143}, "stdout full": {0, 1}}.get(way, {0, 1})
    if ended.code not in wanted:
        return f"not one of {sorted(wanted)}: {' / '.join(lines[-2:])}"
    told = [line for line in lines if line.startswith("qmdd: ")]
    if ended.code and way != "stdout closed" and not told:
        return f"not a word of why: {' / '.join(lines[-2:])}"
    if ended.code and "unexpected" in " ".join(told):
        return told[-1]
    found = tree(place)
    left = hidden(found)
    if left:
        return f"left {left}"
    states = [unbroken.look(output, found) for output in case.outputs]
    if "half" in states:
        return f"half written: {states}"
    return f"{ended.orphans} orphans" if ended.orphans else ""
