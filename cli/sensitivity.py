"""``qmdd sensitivity``: which layer loses how much at which width, and widths for a budget."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .calibration_options import calibration_options, check_percentile, told
from .errors import CommandError
from .options import (
    FILE,
    check_output_file,
    debug_option,
    json_option,
    threads_option,
    use_threads,
)
from .output import print_json, print_line, print_table, progress, stdout_for_results

if TYPE_CHECKING:
    from ..calibration.sensitivity import Loss, Score
    from ..calibration.suggest import Suggestion

#: One bit has another weight quantizer and cannot be mixed with wider layers.
WIDTHS = (2, 3, 4, 8)
FIGURES = (".svg", ".png")


def _widths(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list such as 2,4,8") from error
    unknown = [width for width in found if width not in WIDTHS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]} is not one of {', '.join(map(str, WIDTHS))}")
    return tuple(found)


def _figure(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in FIGURES:
        raise click.BadParameter(f"{path} does not end in {' or '.join(FIGURES)}")
    return path


@click.command("sensitivity")
@click.argument("checkpoint", type=FILE)
@calibration_options(images=64)
@click.option(
    "--widths",
    default="2,3,4,8",
    show_default=True,
    callback=_widths,
    metavar="LIST",
    help="Widths to try.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="BYTES",
    help="Suggest a width for each layer so that all packed weights take this much at most.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    help="Write the suggested widths, for --layer-bits of qmdd calibrate and qmdd train.",
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option(
    "--plot", "figure", type=FILE, callback=_figure, metavar="FILE", help="Draw it: .svg or .png."
)
@threads_option
@json_option
@debug_option
def command(
    checkpoint: Path,
    data: Path,
    method: str,
    percentile: float | None,
    slr: bool,
    images: int,
    seed: int,
    skip_bad: bool,
    widths: tuple[int, ...],
    budget: int | None,
    output: Path | None,
    force: bool,
    figure: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Quantise each layer of the full-precision CHECKPOINT alone, and measure what it loses.

    The loss is the mean squared change of the logit; the JSON also has the changes of the
    cross-entropy and the accuracy. With --budget, the widths with the least sum of losses are
    suggested, calibrated for real and measured.

    \b
    qmdd sensitivity latent.safetensors --data images/train --budget 6000000 -o widths.json
    qmdd calibrate latent.safetensors --data images/train --layer-bits widths.json -o w.safetensors
    """
    check_percentile(method, percentile)
    if output is not None:
        if budget is None:
            raise click.UsageError("--output writes the widths suggested for a --budget; give one")
        check_output_file(output, checkpoint, "the checkpoint", force=force)
    if figure is not None and not figure.parent.is_dir():
        raise CommandError(f"{figure.parent}: no such folder; make it, or choose another --plot")

    from ..calibration.calibrate import Plan
    from ..calibration.layer_bits import layer_bits_bytes
    from ..calibration.plot import plot, require_matplotlib
    from ..calibration.ranges import PERCENTILE, Method
    from ..calibration.sensitivity import measure
    from ..calibration.session import open_session, peak_memory
    from ..calibration.suggest import check, stem_bytes, suggest
    from ..runtime.files import write_atomically

    if figure is not None:
        require_matplotlib()
    use_threads(threads)
    chosen = Method(method, percentile or PERCENTILE)
    plans = [Plan(bits, chosen, slr) for bits in widths]
    started = time.perf_counter()
    with stdout_for_results(), progress() as report:
        session = open_session(
            checkpoint, data, count=images, seed=seed, skip_bad=skip_bad, report=report
        )
        losses, full = measure(session.detector, session.observed, session.images, plans, report)
        arch = session.detector.config.arch
        if figure is not None:
            plot(losses, figure, f"{arch}: one layer quantised at a time, {method}")
        suggestion = None
        if budget is not None:
            mixture = suggest(losses, budget, stem_bytes(session.detector))
            suggestion = check(session, mixture, losses, plans[0], report)
            if output is not None:
                write_atomically(output, layer_bits_bytes(suggestion.layer_bits))
    result = {
        "source": str(checkpoint),
        "arch": arch,
        "method": method,
        "percentile": chosen.percentile if method == "percentile" else None,
        "slr": slr,
        "seed": seed,
        "images": len(session.images),
        "skipped": told(session.images.skipped),
        "data": session.images.digest,
        "full_precision": {"bce": full.bce, "acc": full.acc},
        "losses": [dataclasses.asdict(loss) for loss in losses],
        "budget": budget,
        "layer_bits": suggestion.layer_bits if suggestion else None,
        "suggestion": _suggestion(suggestion) if suggestion else None,
        "output": str(output) if output else None,
        "plot": str(figure) if figure else None,
        "seconds": time.perf_counter() - started,
        "peak_memory": peak_memory(),
    }
    if as_json:
        print_json(result)
    else:
        _print_result(result, losses)


def _suggestion(found: Suggestion) -> dict[str, Any]:
    uniform = None
    if found.uniform is not None:
        bits, size, score = found.uniform
        uniform = {"bits": bits, "packed_bytes": size, "measured": _score(score)}
    return {
        "packed_bytes": found.packed_bytes,
        "predicted_logit_mse": found.predicted,
        "measured": _score(found.measured),
        "uniform": uniform,
    }


def _score(score: Score) -> dict[str, float]:
    return {"logit_mse": score.logit_mse, "bce": score.bce, "acc": score.acc}


def _print_result(result: dict[str, Any], losses: list[Loss]) -> None:
    full = result["full_precision"]
    print_line(
        f"{result['arch']}, {result['method']}, {result['images']} images: Acc {full['acc']:.4f}, "
        f"cross-entropy {full['bce']:.4f} in full precision"
    )
    print_line("")
    _print_losses(losses)
    if result["suggestion"]:
        print_line("")
        _print_suggestion(result)
    print_line("")
    for what, path in (("widths", result["output"]), ("figure", result["plot"])):
        if path:
            print_line(f"{what}: {path}")
    memory = result["peak_memory"]
    peak = f", peak memory {memory / 1e6:,.0f} MB" if memory else ""
    print_line(f"measured in {result['seconds']:.0f} s{peak}")


def _print_losses(losses: list[Loss]) -> None:
    """Mean squared logit change and change of the cross-entropy; the worst layer first."""
    by_layer: dict[str, list[Loss]] = {}
    for loss in losses:
        by_layer.setdefault(loss.layer, []).append(loss)
    widths = [loss.bits for loss in next(iter(by_layer.values()))]
    columns = ["layer", "weights"]
    for bits in widths:
        columns += [f"{bits} bits", "BCE"]
    rows = [
        [name, f"{found[0].weights:,}"]
        + [cell for loss in found for cell in (f"{loss.logit_mse:.2e}", f"{loss.bce:+.4f}")]
        for name, found in sorted(by_layer.items(), key=lambda item: -item[1][0].logit_mse)
    ]
    print_table(columns, rows)


def _print_suggestion(result: dict[str, Any]) -> None:
    found = result["suggestion"]
    rows = [_measured("suggested widths", found)]
    if found["uniform"]:
        rows.append(_measured(f"{found['uniform']['bits']} bits everywhere", found["uniform"]))
    print_line(
        f"widths for {result['budget']:,} bytes (sum of the layers' losses "
        f"{found['predicted_logit_mse']:.2e}):"
    )
    by_width: dict[int, list[str]] = {}
    for name, bits in result["layer_bits"].items():
        by_width.setdefault(bits, []).append(name)
    for bits, names in sorted(by_width.items()):
        print_line(f"  {bits} bits: {', '.join(names)}")
    print_line("")
    print_table(("calibrated", "bytes", "logit change", "cross-entropy", "Acc"), rows)


def _measured(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    score = found["measured"]
    return (
        name,
        f"{found['packed_bytes']:,}",
        f"{score['logit_mse']:.2e}",
        f"{score['bce']:.4f}",
        f"{score['acc']:.4f}",
    )
