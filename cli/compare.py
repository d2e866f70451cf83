"""``qmdd compare``: two bundles or checkpoints side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .errors import CommandError, needs_extra
from .eval import subject_of
from .options import FILE, debug_option, json_option, no_nan, threads_option, threshold_option
from .output import Report, print_json, progress, stdout_for_results

if TYPE_CHECKING:
    from ..exporter.comparing.compare import Opened

F = TypeVar("F", bound=Callable[..., Any])


def _bar(name: str, missed: str) -> Callable[[F], F]:
    return click.option(
        name,
        type=click.FloatRange(min=0),
        callback=no_nan,
        metavar="F",
        help=f"Fail if {missed}.",
    )


@click.command("compare")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option(
    "--checkpoint",
    "sources",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="A bundle's source, found by its hash; repeatable. The built-in ones are known.",
)
@click.option(
    "--data",
    type=FILE,
    metavar="DIR",
    help="Measure both on these images, too: GENERATOR/0_real/*, GENERATOR/1_fake/*.",
)
@threshold_option("each one's own")
@click.option("--skip-bad", is_flag=True, help="Leave out images that either cannot use.")
@click.option("--bench", is_flag=True, help="Time both bundles in turn on this machine.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10,
    show_default=True,
    metavar="S",
    help="With --bench: time to measure for.",
)
@click.option("--layers", is_flag=True, help="Print every layer, those that are the same too.")
@_bar("--max-size-ratio", "B's file is more than F times as large as A's")
@_bar("--max-latency-ratio", "B takes more than F times as long (--bench)")
@_bar("--max-acc-drop", "the mean Acc falls by more than F, of 1 (--data)")
@_bar("--max-ap-drop", "the mean AP falls by more than F, of 1 (--data)")
@threads_option
@json_option
@debug_option
def command(
    a: Path,
    b: Path,
    sources: tuple[Path, ...],
    data: Path | None,
    threshold: float | None,
    skip_bad: bool,
    bench: bool,
    seconds: float,
    layers: bool,
    max_size_ratio: float | None,
    max_latency_ratio: float | None,
    max_acc_drop: float | None,
    max_ap_drop: float | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare A and B, each a bundle or a checkpoint (a built-in one's name will do).

    Says what differs and what is the same: facts, sizes, parity as exported, weight codes and
    thresholds layer by layer, plans, codes on golden images, figures from devices. Differences are
    no failure; the exit code is 1 if B misses a bar that was set with --max-....

    \b
    qmdd compare bundle-2bit bundle-3bit --data images/val
    qmdd compare resnet23-w2a2 runs/mine/frozen.safetensors
    qmdd compare released candidate --bench --max-latency-ratio 1.05 --max-size-ratio 1.1
    """
    if max_latency_ratio is not None and not bench:
        raise click.UsageError("--max-latency-ratio needs --bench")
    if data is None and (max_acc_drop is not None or max_ap_drop is not None):
        raise click.UsageError("--max-acc-drop and --max-ap-drop need --data")

    from ..exporter.comparing.compare import compare
    from ..runtime.comparing.bars import missed

    found: dict[str, Any]
    with stdout_for_results(), progress() as report:
        opened = [_opened(path, sources) for path in (a, b)]
        if bench and any(side.bundle is None for side in opened):
            raise click.UsageError("--bench times bundles: export the checkpoint first")
        found = compare(*opened)
        if data is not None:
            found |= _measured(opened, data, threshold, skip_bad, threads, report)
        if bench:
            found["bench"] = _timed(opened, threads, seconds, report)
    lines = missed(
        found,
        size_ratio=max_size_ratio,
        latency_ratio=max_latency_ratio,
        acc_drop=max_acc_drop,
        ap_drop=max_ap_drop,
    )
    found["missed"] = lines
    if as_json:
        print_json(found)
    else:
        from .comparison import print_comparison

        print_comparison(found, every_layer=layers)
    if lines:
        raise CommandError(f"{b} misses its bar: {'; '.join(lines)}")


def _opened(path: Path, sources: tuple[Path, ...]) -> Opened:
    from ..exporter.comparing.compare import open_side
    from ..models.zoo import checkpoint_named

    found = checkpoint_named(path)
    if not found.exists():
        raise CommandError(f"{path}: no such bundle or checkpoint, nor a built-in one (qmdd zoo)")
    if found.suffix in (".onnx", ".json"):
        raise CommandError(f"{path}: a file of a bundle; give the bundle's folder")
    return open_side(found, [checkpoint_named(source) for source in sources])


def _measured(
    opened: list[Opened],
    data: Path,
    threshold: float | None,
    skip_bad: bool,
    threads: int | None,
    report: Report,
) -> dict[str, Any]:
    from ..runtime.comparing.paired import score_both
    from ..runtime.folder import scan

    samples = scan(data, shared_reals=True)
    one, other = (subject_of(side.side.path, threads, None) for side in opened)
    needs_extra("export")
    paired, left_out = score_both(
        samples, one, other, data, threshold=threshold, skip_bad=skip_bad, report=report
    )
    skipped = [{"path": str(path), "reason": reason} for path, reason in left_out]
    return {"data": str(data), "paired": paired.to_dict(), "skipped": skipped}


def _timed(
    opened: list[Opened], threads: int | None, seconds: float, report: Report
) -> dict[str, Any]:
    from ..runtime.comparing.in_turn import time_in_turn

    one, other = (side.bundle for side in opened)
    assert one is not None  # noqa: S101 - refused before
    assert other is not None  # noqa: S101
    return time_in_turn(one, other, threads=threads or 1, seconds=seconds, report=report)
