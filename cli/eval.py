"""``qmdd eval``: how good a detector is on a labelled image folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import CommandError, needs_extra, on_interrupt
from .evaluation import print_evaluation, print_evaluation_csv, tell_left_out
from .options import (
    FILE,
    debug_option,
    json_option,
    runtime_option,
    threads_option,
    threshold_option,
    use_threads,
)
from .output import print_json, print_line, progress, stdout_for_results

if TYPE_CHECKING:
    from ..runtime.scoring import Subject


@click.command("eval")
@click.argument("detector", type=FILE, metavar="BUNDLE|CHECKPOINT")
@click.option(
    "--data",
    required=True,
    type=FILE,
    metavar="DIR",
    help="Image folder: GENERATOR/0_real/*, GENERATOR/1_fake/*.",
)
@threshold_option("the bundle's; of a checkpoint 0.5")
@click.option(
    "--seen",
    metavar="A,B",
    help="Generators that were seen in training; default: what the detector's record says.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be used.")
@click.option("--scores", type=FILE, metavar="FILE", help="Write each image's score as CSV.")
@click.option(
    "--plot", type=FILE, metavar="FILE", help="Draw the result: a .png, .svg or .pdf file."
)
@runtime_option
@threads_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV.")
@debug_option
def command(
    detector: Path,
    data: Path,
    threshold: float | None,
    seen: str | None,
    skip_bad: bool,
    scores: Path | None,
    plot: Path | None,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Measure a bundle (with its runtime) or a checkpoint (with PyTorch) on an image folder.

    Prints accuracy and average precision of each generator and their means, with 95 % confidence
    intervals. The test sets ForenSynths and UniversalFakeDetect are known by their folder names.

    \b
    qmdd eval bundle --data images/test
    qmdd eval runs/mine/frozen.safetensors --data images/test --json
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    given = [name.strip() for name in seen.split(",") if name.strip()] if seen is not None else None
    for path in (scores, plot):
        _check_output(path)
    if plot is not None:
        from ..runtime.plot import check_plot

        check_plot(plot)

    from ..runtime.evaluate import evaluate
    from ..runtime.folder import find_outside, scan
    from ..runtime.known_sets import find_seen, in_order
    from ..runtime.scoring import score_samples, scores_csv

    started = time.perf_counter()
    on_interrupt(lambda: "nothing was written")
    with stdout_for_results(), progress() as report:
        samples = scan(data, shared_reals=True)
        outside = [str(path) for path in find_outside(data)]
        subject = subject_of(detector, threads, runtime)
        groups = find_seen(in_order({s.generator for s in samples}), subject.trained_on, given)
        scored = score_samples(samples, subject, skip_bad=skip_bad, report=report)
        bar = subject.threshold if threshold is None else threshold
        found = evaluate(scored, data, threshold=bar, seen=groups, report=report)
    result = {
        "detector": str(detector),
        "kind": subject.kind,
        "arch": subject.arch,
        "bits": subject.bits,
        "data": str(data),
        **found.to_dict(),
        "skipped": [{"path": str(path), "reason": reason} for path, reason in scored.skipped],
        "outside": outside,
        "seconds": time.perf_counter() - started,
    }
    if as_json:
        print_json(result)
    elif as_csv:
        print_evaluation_csv(result)
    else:
        print_line(f"{subject.kind} {detector}: {subject.arch}, {subject.bits} bits")
        print_line(f"{data}: {found.images:,} images, {len(found.rows)} generators")
        print_line("")
        print_evaluation(result)
    tell_left_out(result["skipped"], outside)
    on_interrupt(lambda: "the result stands above; a file that was asked for may be missing")
    if scores is not None:
        _write(scores, scores_csv(scored))
    if plot is not None:
        from ..runtime.plot import plot_bytes

        _write(plot, plot_bytes(found, plot))


def _check_output(path: Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    if path is None:
        return
    if path.is_dir():
        raise CommandError(f"{path}: a folder; name a file")
    if not path.parent.is_dir():
        raise CommandError(f"{path.parent}: no such folder; make it, or choose another place")


def subject_of(path: Path, threads: int | None, runtime: str | None) -> Subject:
    """A folder is a bundle, a file or a built-in one's name a checkpoint.

    A file of a bundle is refused with the advice to give the folder.
    """
    if path.is_dir() or path.suffix in (".onnx", ".json"):
        from ..runtime.scoring import subject_from_bundle

        return subject_from_bundle(path, threads, runtime)
    from ..models.zoo import checkpoint_named

    file = checkpoint_named(path)
    if not file.exists():
        raise CommandError(f"{path}: no such bundle or checkpoint, nor a built-in one (qmdd zoo)")
    if runtime is not None:
        raise click.UsageError(f"--runtime is for bundles; {path} is a checkpoint, run by PyTorch")
    needs_extra("train")

    from ..calibration.evaluate import subject_from_checkpoint

    use_threads(threads)
    return subject_from_checkpoint(file)


def _write(path: Path, content: bytes) -> None:
    from ..runtime.files import write_atomically

    write_atomically(path, content)
