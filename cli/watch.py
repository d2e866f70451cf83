"""``qmdd watch``: a folder that is watched, and a file of verdicts on what comes into it."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import FAILURE, on_interrupt, printable
from .options import (
    FILE,
    check_output_file,
    debug_option,
    every_option,
    runtime_option,
    threads_option,
    threshold_option,
)
from .output import progress


@click.command("watch")
@click.argument("bundle", type=FILE)
@click.argument("folder", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    metavar="FILE",
    help="Verdicts, one JSON object a line; appended to, and the memory of what is done.",
)
@click.option("--once", is_flag=True, help="Score what is there, then end.")
@click.option(
    "--poll",
    type=click.FloatRange(0.1, 86_400),
    default=2,
    show_default=True,
    metavar="S",
    help="Seconds between two looks at FOLDER.",
)
@click.option(
    "--settle",
    type=click.FloatRange(0, 86_400),
    default=2,
    show_default=True,
    metavar="S",
    help="Seconds for which a file must not have changed to count as complete.",
)
@threshold_option("the bundle's")
@every_option
@runtime_option
@threads_option
@debug_option
def command(
    bundle: Path,
    folder: Path,
    output: Path,
    once: bool,
    poll: float,
    settle: float,
    threshold: float | None,
    every: int,
    runtime: str | None,
    threads: int | None,
) -> int:
    """Score every image and video that comes into FOLDER, or a folder below it, with BUNDLE.

    Each file is scored once, also across crashes: what is done stands in FILE. A file that cannot
    be used gets a line with its error. SIGTERM and Ctrl-C end after the file in hand, SIGHUP opens
    FILE anew. FOLDER may vanish and come back.

    \b
    qmdd watch bundle /mnt/camera -o verdicts.jsonl
    qmdd watch bundle inbox -o verdicts.jsonl --once
    """
    check_output_file(output, bundle / "model.onnx", "the bundle's own model", force=True)
    on_interrupt(lambda: f"what is done stands in {output}")

    from ..runtime.detector import Detector
    from ..runtime.images import require_pillow
    from ..runtime.watching.log import VerdictLog
    from ..runtime.watching.loop import Watch
    from ..runtime.watching.scan import Scan, suffixes
    from ..runtime.watching.signals import Signals

    require_pillow()
    detector = Detector.open(bundle, threads=threads, runtime=runtime)
    scan = Scan(folder, suffixes(), settle)
    with VerdictLog(output) as log, Signals().installed() as signals, progress() as report:
        tally = Watch(
            detector,
            scan,
            log,
            threshold=threshold,
            every=every,
            poll=poll,
            signals=signals,
            say=_say,
            report=lambda count: report("watching", count, 0),
        ).run(once=once)
    _say(
        f"{tally.scored:,} scored, {tally.failed:,} could not be, {tally.waiting:,} still being "
        "written"
    )
    return FAILURE if once and tally.failed else 0


def _say(text: str) -> None:
    click.echo(printable(f"qmdd: {text}"), err=True)
