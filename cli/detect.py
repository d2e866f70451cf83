"""``qmdd detect``: images and videos to verdicts, with a bundle and no torch."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import FAILURE, on_interrupt, printable
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
from .output import json_array, print_json_line, print_line, progress, stdout_is_terminal

if TYPE_CHECKING:
    from ..runtime.verdicts import Verdict

#: The same as :data:`qmdd.runtime.detector.BATCH`, which is not imported here because it imports
#: numpy; a test holds the two together.
BATCH = 1

Print = Callable[["Verdict"], None]


@click.command("detect")
@click.argument("bundle", type=FILE)
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@threshold_option("the bundle's")
@every_option
@click.option("--frames", is_flag=True, help="Print a verdict on each scored frame of a video.")
@click.option("-0", "--null", is_flag=True, help="Paths on standard input end in NUL bytes.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=BATCH,
    metavar="N",
    help=f"Images that are taken at a time, those of equal size scored together; default: {BATCH}.",
)
@runtime_option
@threads_option
@json_option
@click.option("--jsonl", "as_lines", is_flag=True, help="Print one JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV.")
@debug_option
def command(
    bundle: Path,
    paths: tuple[str, ...],
    threshold: float | None,
    every: int,
    frames: bool,
    null: bool,
    batch: int,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
    as_lines: bool,
    as_csv: bool,
) -> int:
    """Score images and videos with BUNDLE: files, folders, patterns, or - for a list of paths.

    The score is the probability that the image is fake; a video's is the mean of its frames'.
    Results come as they are found, in the order of what was given. A file that cannot be used is
    named on stderr (in the result with --json, --jsonl or --csv), the others are scored all the
    same, and the exit code is 1.

    \b
    qmdd detect bundle photo.jpg
    qmdd detect bundle photos/ 'more/**/*.png' --jsonl
    find photos -name '*.jpg' -print0 | qmdd detect bundle -0 -
    qmdd detect bundle clip.mp4 --every 5 --frames
    """
    if as_json + as_lines + as_csv > 1:
        raise click.UsageError("--json, --jsonl and --csv exclude each other")
    if null and "-" not in paths:
        raise click.UsageError("--null is for a list of paths on standard input: add -")
    done = failed = 0
    on_interrupt(lambda: f"done and printed: {done:,} file{'' if done == 1 else 's'}")
    inputs = inputs_of(paths, null)

    from ..runtime.detector import Detector

    detector = Detector.open(bundle, threads=threads, runtime=runtime)
    verdicts = detector.detect(inputs, threshold=threshold, batch=batch, every=every, frames=frames)
    # On a terminal the verdicts themselves are the progress.
    shown = as_json or not stdout_is_terminal()
    with _printer(as_json, as_lines, as_csv) as show, progress(shown=shown) as report:
        for verdict in verdicts:
            show(verdict)
            if verdict.frame is None:
                done += 1
                failed += verdict.error is not None
                report("detecting", done, 0)
    return FAILURE if failed else 0


@contextlib.contextmanager
def _printer(as_json: bool, as_lines: bool, as_csv: bool) -> Iterator[Print]:
    """What prints a verdict, whole, as soon as there is one."""
    if as_json:
        with json_array() as add:
            yield lambda verdict: add(verdict.to_dict())
    elif as_lines:
        yield lambda verdict: print_json_line(verdict.to_dict())
    elif as_csv:
        _print_csv_row(_COLUMNS)
        yield lambda verdict: _print_csv_row(_cells(verdict))
    else:
        yield _print_verdict


def _print_verdict(verdict: Verdict) -> None:
    if verdict.error is not None:
        click.echo(printable(f"qmdd: error: {verdict.error}"), err=True)
        return
    line = f"{verdict.score:.4f}  {verdict.verdict}  {verdict.path}"
    clip, frame = verdict.clip, verdict.frame
    if frame is not None:
        at = "" if frame.seconds is None else f" at {frame.seconds:.3f} s"
        line += f", frame {frame.number:,}{at}"
    if clip is not None:
        line += f" ({clip.fakes:,} of {clip.frames:,} frames fake)"
        if clip.broken:
            places = f"{clip.broken:,} broken place{'' if clip.broken == 1 else 's'}"
            warning = f"qmdd: warning: {verdict.path}: {places} passed over: {clip.first_broken}"
            click.echo(printable(warning), err=True)
    print_line(line)


_COLUMNS = (
    *("path", "score", "verdict", "error", "frame", "seconds"),
    *("frames", "fake_frames", "decoded", "broken", "first_broken"),
)


def _cells(verdict: Verdict) -> tuple[object, ...]:
    row = verdict.to_dict()
    return tuple(row.get(column) for column in _COLUMNS)


def _print_csv_row(cells: tuple[object, ...]) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    # The bytes of the file's name as they are, whatever the terminal's encoding.
    click.echo(line.getvalue().encode("utf-8", "surrogateescape"), nl=False)
