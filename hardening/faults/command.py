"""The command line of ``python -m hardening.faults``."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmdd.cli.output import print_line, print_table, progress

if TYPE_CHECKING:
    from .case import Case
    from .record import Found, Record

COLUMNS = (
    *("case", "moments", "kills", "old", "new", "between", "half", "lost", "failed"),
    *("left work files", "left still", "orphans"),
)


def _number(name: str, default: int, text: str) -> Callable[[Any], Any]:
    return click.option(
        name, type=click.IntRange(min=0), default=default, show_default=True, metavar="N", help=text
    )


@click.command("faults")
@_number("--kills", 200, "Kills of each command at least, shared by its cases.")
@_number("--moments", 60, "Up to so many, a case is killed at every moment.")
@_number("--interrupts", 20, "Interruptions of each case, by each signal; starved, too.")
@_number("--readings", 100, "Runs of each command that reads a bundle, which is replaced.")
@_number("--crowd", 4000, "Images that are asked for at once, in each way.")
@click.option("--command", "names", multiple=True, metavar="NAME", help="One of them; repeatable.")
@click.option("--starve", "hungry", multiple=True, metavar="CASE", help="Only these are starved.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep what is found there, piece by piece; what is there already is not done again.",
)
@click.option("--list", "only_list", is_flag=True, help="List the cases.")
def command(
    kills: int,
    moments: int,
    interrupts: int,
    readings: int,
    crowd: int,
    names: tuple[str, ...],
    hungry: tuple[str, ...],
    seed: int,
    record: Path | None,
    only_list: bool,
) -> None:
    """Kill, starve and interrupt every command that writes; replace bundles that are read; crowds.

    0 leaves something out. The exit code is 1 where anything is half-written, lost, mixed, wrong or
    left behind.
    """
    from .cases import CASES

    unknown = set(names) - {case.command for case in CASES} - {case.name for case in CASES}
    if unknown:
        raise click.UsageError(f"no command {sorted(unknown)[0]!r} here; see --list")
    chosen = [c for c in CASES if not names or c.name in names or c.command in names]
    if only_list:
        for case in chosen:
            print_line(f"{case.name}: qmdd {' '.join(case.arguments)}")
        return

    from .child import adopt
    from .device import make_device
    from .record import Record, faults
    from .world import import_all, make_world, trace_once

    import_all()
    trace_once()
    adopt()
    kept = Record(record)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "world").mkdir()
        make_world(root / "world")
        if any(case.environment for case in chosen):
            make_device(root / "world")
        if kills:
            shares = {
                c.name: -(-kills // sum(o.command == c.command for o in CASES)) for c in CASES
            }
            _kill(chosen, root, shares, moments, seed, kept)
        if interrupts:
            fed = [case for case in chosen if not hungry or case.name in hungry]
            _starve(fed, root, interrupts, seed, kept)
        _replace_and_crowd(root, readings, crowd, seed, kept)
    _print(kept)
    if faults(kept.found):
        sys.exit(1)


def _kill(
    chosen: list[Case], root: Path, shares: dict[str, int], moments: int, seed: int, kept: Record
) -> None:
    from .kills import Tally, kill

    for case in chosen:
        held = kept.get(Tally, case.name)
        if isinstance(held, Tally) and held.kills >= shares[case.name]:
            continue
        with progress() as report:
            tally = kill(
                case,
                root / "world",
                root / "case" / "place",
                shares[case.name],
                moments=moments,
                seed=seed,
                tell=lambda done, total, what=case.name: report(what, done, total),  # type: ignore[misc]
            )
        _keep(kept, tally)


def _starve(chosen: list[Case], root: Path, runs: int, seed: int, kept: Record) -> None:
    from .starve import WAYS, Starved, starve

    for case in chosen:
        ways = tuple(way for way in WAYS if kept.get(Starved, case.name, way) is None)
        if case.agent or not ways:
            continue
        for found in starve(case, root / "world", root / "case" / "place", runs, ways, seed):
            _keep(kept, found)


def _replace_and_crowd(root: Path, readings: int, crowd: int, seed: int, kept: Record) -> None:
    from .crowd import WAYS, Crowd
    from .swap import READERS, Swapped, lay_out, swap

    place = root / "replaced" / "place"
    if readings:
        lay_out(root / "world", place)
    for reader in READERS if readings else ():
        if kept.get(Swapped, reader.arguments[0]) is None:
            _keep(kept, swap(reader, place, readings, seed))
    images = sorted((root / "world" / "images").rglob("*.png"))
    for name, (ask, at_once) in WAYS.items() if crowd else ():
        if kept.get(Crowd, name) is None:
            _keep(kept, ask(root / "world" / "bundle", images, crowd, at_once))


def _keep(kept: Record, found: Found) -> None:
    kept.add(found)
    plain = {key: held for key, held in dataclasses.asdict(found).items() if held}
    print_line(f"{type(found).__name__}: {plain}")


def _print(kept: Record) -> None:
    from .kills import Tally

    rows = [
        (
            *(tally.case, tally.moments, tally.kills, tally.old, tally.new, tally.between),
            *(tally.half, tally.lost, tally.failed, tally.with_leftovers, tally.leftovers),
            tally.orphans,
        )
        for tally in kept.found
        if isinstance(tally, Tally)
    ]
    print_table(COLUMNS, rows)


def main() -> Any:
    """Entry point."""
    return command(prog_name="python -m hardening.faults")
