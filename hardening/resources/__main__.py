"""``python -m hardening.resources``: every hostile input, its cost and its answer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from .case import BAR, Outcome, tried
from .every import every_case


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", help="Cases whose name holds this.")
@click.option("--record", type=click.Path(path_type=Path), help="Write the result there, as JSON.")
def main(only: str, record: Path | None) -> None:
    """Give qmdd inputs that ask for memory; exit code 1 if one gets more than it may."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(every_case(Path(place))):
            if only not in case.name:
                continue
            folder = Path(place, f"case-{number}")
            folder.mkdir()
            outcome = tried(case, folder)
            outcomes.append(outcome)
            _remove(folder)
            said = outcome.said.strip().replace(str(folder), "")[-150:]
            click.echo(
                f"{'FAULT ' if outcome.faults else ''}{case.name}: exit code {outcome.exit_code}, "
                f"{outcome.peak >> 20} MiB, {outcome.seconds:.1f} s; "
                f"{', '.join(outcome.faults)} {said}"
            )
    faults = sum(bool(outcome.faults) for outcome in outcomes)
    click.echo(f"{len(outcomes)} cases, {faults} with faults; at most {BAR >> 20} MiB each")
    if record:
        from ..records import record_result

        peak = max((outcome.peak for outcome in outcomes), default=0)
        record_result(
            record,
            {
                "bar_mib": BAR >> 20,
                "cases": len(outcomes),
                "faults": faults,
                "peak_mib": peak >> 20,
                "outcomes": [outcome.to_dict() for outcome in outcomes],
            },
        )
    raise SystemExit(1 if faults else 0)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
