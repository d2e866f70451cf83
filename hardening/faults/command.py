"""The command line of ``python -m hardening.faults``."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from qmdd.cli.output import print_line, print_table, progress

from .kills import Tally

COLUMNS = (
    *("case", "moments", "kills", "old", "new", "between", "half", "lost", "failed"),
    *("left work files", "left still", "orphans"),
)


def row_of(tally: Tally) -> tuple[object, ...]:
    """A tally as a row of :data:`COLUMNS`."""
    return (
        *(tally.case, tally.moments, tally.kills, tally.old, tally.new, tally.between),
        *(tally.half, tally.lost, tally.failed, tally.with_leftovers, tally.leftovers),
        tally.orphans,
    )


@click.command("faults")
@click.option(
    "--kills",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Of each command at least, shared by its cases.",
)
@click.option("--command", "names", multiple=True, metavar="NAME", help="One of them; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the result there, case by case; cases that are there already are not run again.",
)
@click.option("--list", "only_list", is_flag=True, help="List the cases.")
def command(
    kills: int, names: tuple[str, ...], seed: int, record: Path | None, only_list: bool
) -> None:
    """Kill every command that writes, at every moment and at random times; look what is left."""
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
    from .kills import kill
    from .record import Record
    from .world import import_all, make_world, trace_once

    import_all()
    trace_once()
    adopt()
    shares = {c.name: -(-kills // sum(o.command == c.command for o in CASES)) for c in CASES}
    kept = Record(record, shares)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "world").mkdir()
        make_world(root / "world")
        if any(case.environment for case in chosen):
            make_device(root / "world")
        for case in chosen:
            if kept.has(case.name):
                continue
            with progress() as report:
                tally = kill(
                    case,
                    root / "world",
                    root / "case" / "place",
                    shares[case.name],
                    seed=seed,
                    tell=lambda done, total, what=case.name: report(what, done, total),  # type: ignore[misc]
                )
            kept.add(tally)
            print_line(json.dumps(dataclasses.asdict(tally)))
    print_table(COLUMNS, [row_of(tally) for tally in kept.tallies])
    if any(tally.faults for tally in kept.tallies):
        sys.exit(1)


def main() -> Any:
    """Entry point."""
    return command(prog_name="python -m hardening.faults")
