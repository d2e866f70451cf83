"""``qmdd detect``: images to verdicts, with a bundle and no torch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import FAILURE, printable
from .options import (
    FILE,
    debug_option,
    image_files,
    json_option,
    runtime_option,
    threads_option,
    threshold_option,
)
from .output import print_json, print_line, progress, stdout_is_terminal

if TYPE_CHECKING:
    from ..runtime.detector import Verdict


@click.command("detect")
@click.argument("bundle", type=FILE)
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="PATH...")
@threshold_option("the bundle's")
@runtime_option
@threads_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV.")
@debug_option
def command(
    bundle: Path,
    paths: tuple[Path, ...],
    threshold: float | None,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
    as_csv: bool,
) -> int:
    """Score images, or folders of images, with BUNDLE.

    The score is the probability that the image is fake. An image that cannot be used is named on
    stderr (in the result with --json or --csv), the others are scored all the same, and the exit
    code is 1.

    \b
    qmdd detect bundle photo.jpg
    qmdd detect bundle photos/ --json
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    files = image_files(paths)

    from ..runtime.detector import Detector

    detector = Detector.open(bundle, threads=threads, runtime=runtime)
    verdicts = detector.detect(files, threshold=threshold)
    if as_csv:
        _print_csv_row(("path", "score", "verdict", "error"))
    rows: list[dict[str, Any]] = []
    failed = 0
    # On a terminal the verdicts themselves are the progress.
    with progress(shown=as_json or not stdout_is_terminal()) as report:
        for done, verdict in enumerate(verdicts, 1):
            failed += verdict.error is not None
            if as_json:
                rows.append(_row(verdict))
            elif as_csv:
                _print_csv_row((verdict.path, verdict.score, verdict.verdict, verdict.error))
            else:
                _print_verdict(verdict)
            report("detecting", done, len(files))
    if as_json:
        print_json(rows)
    return FAILURE if failed else 0


def _row(verdict: Verdict) -> dict[str, Any]:
    if verdict.error is not None:
        return {"path": str(verdict.path), "error": verdict.error}
    return {"path": str(verdict.path), "score": verdict.score, "verdict": verdict.verdict}


def _print_verdict(verdict: Verdict) -> None:
    if verdict.error is not None:
        click.echo(printable(f"qmdd: error: {verdict.error}"), err=True)
    else:
        print_line(f"{verdict.score:.4f}  {verdict.verdict}  {verdict.path}")


def _print_csv_row(cells: tuple[object, ...]) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    # The bytes of the file's name as they are, whatever the terminal's encoding.
    click.echo(line.getvalue().encode("utf-8", "surrogateescape"), nl=False)
