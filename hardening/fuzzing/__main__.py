"""``python -m hardening.fuzzing``: a long run, its record, and found cases into the tree."""

from __future__ import annotations

import contextlib
from importlib import metadata
from pathlib import Path

import click

from qmdd.cli.output import print_json, print_line, print_table, progress

from ..records import record_result
from .campaign import Campaign, planned, record_of
from .found import faults
from .kinds import KINDS
from .outcome import FAULTS


@click.command("fuzzing")
@click.option(
    "--cases", type=click.IntRange(min=1), metavar="N", help="In all; default: 1.2 million."
)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only these; repeatable."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, metavar="N")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("out/fuzzing"),
    show_default=True,
    help="Seeds, faults, what is done so far: the same command goes on there.",
)
@click.option(
    "--record", type=click.Path(path_type=Path), help="Write counts and versions to FILE."
)
@click.option("--list", "list_", is_flag=True, help="List the kinds.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(
    cases: int | None,
    kinds: tuple[str, ...],
    seed: int,
    work: Path,
    record: Path | None,
    list_: bool,
    as_json: bool,
) -> int:
    """Change valid files of every kind that comes from outside, and see what qmdd makes of them.

    The exit code is 1 if anything crashed, hung, ended in a traceback, took more than 1 GiB, or
    was accepted and should not have been.
    """
    if list_:
        rows = [
            (kind.name, f"{kind.cases:,}", "yes" if kind.guided else "", kind.what)
            for kind in KINDS.values()
        ]
        print_table(("kind", "cases", "guided", "what"), rows, text=True)
        return 0
    with progress() as report:
        campaign = Campaign(work, seed, report)
        campaign.run(planned(cases, kinds))
    found = faults(work / "faults")
    result = {"libraries": _libraries(), **record_of(campaign, found)}
    if record is not None:
        record.parent.mkdir(parents=True, exist_ok=True)
        record_result(record, result)
    if as_json:
        print_json(result)
    else:
        names = ("cases", "refused", "accepted", *FAULTS)
        print_table(
            ("kind", *names),
            [
                (kind, *(told.get(name, 0) for name in names))
                for kind, told in result["kinds"].items()
            ],
        )
        for fault in found:
            print_line(f"{fault['kind']} {fault['case']}: {fault['name']}, {fault['where']}")
    return 1 if any(result["outcomes"][name] for name in FAULTS) else 0


def _libraries() -> dict[str, str]:
    """Versions beyond those that every record has."""
    found = {}
    for package in ("atheris", "pyarrow", "starlette"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


if __name__ == "__main__":
    raise SystemExit(command(standalone_mode=False))
