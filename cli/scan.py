"""``qmdd scan``: a large collection to Parquet, restartable, here or on Ray."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import FAILURE, needs_extra, on_interrupt
from .options import (
    FILE,
    debug_option,
    every_option,
    inputs_of,
    json_option,
    runtime_option,
    threads_option,
    threshold_option,
)
from .output import print_json, print_line, progress, stdout_for_results

#: The same as :data:`qmdd.runtime.scan.scan.PART`, which is not imported here because that imports
#: numpy; a test holds the two together.
PART = 500


@click.command("scan")
@click.argument("bundle", type=FILE)
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    metavar="DIR",
    help="Folder of the results; one that holds the same scan is gone on with.",
)
@click.option(
    "--part",
    type=click.IntRange(1, 100_000),
    default=PART,
    show_default=True,
    metavar="N",
    help="Files in a part; one Parquet file each.",
)
@threshold_option("the bundle's")
@every_option
@click.option("-0", "--null", is_flag=True, help="Paths on standard input end in NUL bytes.")
@click.option("--ray", "on_ray", is_flag=True, help="Score on Ray, started on this machine.")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Score on the Ray cluster there, or 'auto': the one that this machine belongs to.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="On Ray: workers, each with --threads cores (default: 1); default: all cores.",
)
@runtime_option
@threads_option
@click.option("--force", is_flag=True, help="Start anew, whatever scan the folder holds.")
@json_option
@debug_option
def command(
    bundle: Path,
    paths: tuple[str, ...],
    output: Path,
    part: int,
    threshold: float | None,
    every: int,
    null: bool,
    on_ray: bool,
    address: str | None,
    workers: int | None,
    runtime: str | None,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> int:
    """Score a large collection with BUNDLE: files, folders, patterns, or - for a list of paths.

    Every file is one row of the Parquet files in the folder of results, what cannot be used with
    its error. Whatever interrupts it, the same command goes on: it costs at most the parts that
    were being scored. If files cannot be used, the exit code is 1.

    \b
    qmdd scan bundle photos/ -o results
    qmdd scan bundle photos/ -o results --ray --workers 8
    find /data -name '*.jpg' -print0 | qmdd scan bundle -0 - -o results
    """
    if null and "-" not in paths:
        raise click.UsageError("--null is for a list of paths on standard input: add -")
    if workers is not None and not (on_ray or address):
        raise click.UsageError("--workers is for Ray: add --ray, or --address")
    needs_extra("ray" if on_ray or address else "scan")
    on_interrupt(lambda: f"finished parts are kept in {output}; the same command goes on")
    inputs = inputs_of(paths, null)

    from ..runtime.scan.scan import OnRay, scan

    with stdout_for_results(), progress() as report:
        result = scan(
            bundle,
            inputs,
            output,
            part=part,
            threshold=threshold,
            every=every,
            runtime=runtime,
            threads=threads,
            ray=OnRay(address, workers) if on_ray or address else None,
            force=force,
            report=report,
        )
    on_interrupt(lambda: f"{output} is complete")
    if as_json:
        print_json(result.to_dict())
    else:
        scored = result.files - result.failed
        print_line(
            f"{result.files:,} files in {result.parts:,} parts, {result.kept:,} of them kept"
        )
        if result.damaged:
            print_line(f"{result.damaged:,} parts were damaged and were done again")
        print_line(f"{scored:,} scored, {result.fake:,} of them fake; {result.failed:,} unusable")
        print_line(f"results: {output}")
    return FAILURE if result.failed else 0
