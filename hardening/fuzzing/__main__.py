"""``python -m hardening.fuzzing``: a long run, its record, and found cases into the tree."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from qmdd.cli.output import print_json, print_line, print_table, progress
from qmdd.runtime.files import write_atomically
from qmdd.runtime.machine import processor

from .campaign import Campaign, planned, record_of
from .found import faults
from .kinds import KINDS
from .outcome import FAULTS

_PACKAGES = (
    *("atheris", "av", "numpy", "onnx", "onnxruntime", "pillow", "pyarrow", "safetensors"),
    *("starlette", "torch"),
)


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
    result = {**_machine(), **record_of(campaign, found)}
    if record is not None:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps(result, indent=2).encode() + b"\n")
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


def _machine() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package).split("+")[0]
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "measured": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": versions,
    }


if __name__ == "__main__":
    raise SystemExit(command(standalone_mode=False))
