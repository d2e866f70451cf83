"""``qmdd calibrate``: a full-precision checkpoint to a quantised one, without training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .calibration_options import calibration_options, check_percentile, told
from .errors import on_interrupt
from .options import (
    FILE,
    check_output_file,
    debug_option,
    json_option,
    threads_option,
    use_threads,
)
from .output import Report, print_json, print_line, print_table, progress, stdout_for_results

if TYPE_CHECKING:
    from ..calibration.calibrate import LayerRange
    from ..models import Detector
    from ..runtime.folder import Sample

WIDTHS = ("1", "2", "3", "4", "8")
DEFAULT_BITS = 4


@click.command("calibrate")
@click.argument("checkpoint", type=FILE)
@calibration_options(images=256)
@click.option(
    "--bits",
    type=click.Choice(WIDTHS),
    help=f"Width of weights and activations; default: {DEFAULT_BITS}, or that of most layers of "
    "--layer-bits.",
)
@click.option(
    "--layer-bits",
    type=FILE,
    metavar="FILE",
    help="Widths by layer, JSON: what qmdd sensitivity --budget -o writes.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="FILE",
    help="Frozen checkpoint to write, for qmdd export.",
)
@click.option(
    "--latent", type=FILE, metavar="FILE", help="Write the trainable checkpoint too, for --init."
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option(
    "--eval",
    "eval_data",
    type=FILE,
    metavar="DIR",
    help="Image folder of the same layout to measure both on, before and after.",
)
@click.option("--layers", is_flag=True, help="Print every layer's range.")
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
    bits: str | None,
    layer_bits: Path | None,
    output: Path,
    latent: Path | None,
    force: bool,
    eval_data: Path | None,
    layers: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Quantise the full-precision CHECKPOINT by looking at images, without training.

    Ranges of activations come from what the layers see, weight steps from the weights, and
    batch-norm statistics are taken anew. CHECKPOINT is the latent one of qmdd train --bits 32. At
    2 bits this costs much accuracy: train then.

    \b
    qmdd calibrate runs/full/latent.safetensors --data images/train --bits 8 -o w8.safetensors
    qmdd calibrate latent.safetensors --data images/train --layer-bits widths.json -o w.safetensors
    """
    check_percentile(method, percentile)
    _check_outputs(checkpoint, output, latent, force)

    from ..calibration.calibrate import Plan, calibrate
    from ..calibration.layer_bits import load_layer_bits
    from ..calibration.mixture import common_width
    from ..calibration.ranges import PERCENTILE, Method
    from ..calibration.session import open_session
    from ..runtime.folder import scan

    use_threads(threads)
    widths = load_layer_bits(layer_bits) if layer_bits is not None else ()
    usual = common_width([n for _, n in widths]) if widths else DEFAULT_BITS
    chosen = Method(method, percentile or PERCENTILE)
    plan = Plan(int(bits) if bits else usual, chosen, slr, widths)
    # Looked at before the minutes of calibration, not after them.
    held_out = scan(eval_data) if eval_data is not None else []
    on_interrupt(lambda: f"nothing was written: {output} is as it was")
    started = time.perf_counter()
    with stdout_for_results(), progress() as report:
        session = open_session(
            checkpoint, data, count=images, seed=seed, skip_bad=skip_bad, report=report
        )
        detector, found = calibrate(
            session.detector, session.observed, session.images, plan, report
        )
        sizes = _save(detector, session.notes(plan), output, latent)
        on_interrupt(lambda: f"{output} is complete")
        seconds = time.perf_counter() - started
        metrics = _compare(session.detector, detector, held_out, report) if held_out else {}
    result = {
        "source": str(checkpoint),
        "arch": detector.config.arch,
        "bits": plan.bits,
        "layer_bits": dict(plan.layer_bits),
        "method": method,
        "percentile": chosen.percentile if method == "percentile" else None,
        "slr": slr,
        "seed": seed,
        "images": len(session.images),
        "skipped": told(session.images.skipped),
        "data": session.images.digest,
        "seconds": seconds,
        "files": sizes,
        "layers": [dataclasses.asdict(layer) for layer in found],
        "metrics": metrics,
    }
    if as_json:
        print_json(result)
    else:
        _print_result(result, found, layers)


def _check_outputs(checkpoint: Path, output: Path, latent: Path | None, force: bool) -> None:
    if latent is not None and latent.resolve() == output.resolve():
        raise click.UsageError("--output and --latent name the same file")
    check_output_file(output, checkpoint, "the checkpoint", force=force)
    if latent is not None:
        check_output_file(latent, checkpoint, "the checkpoint", force=force, option="--latent")


def _save(
    detector: Detector, notes: dict[str, str], output: Path, latent: Path | None
) -> dict[str, int]:
    """Write the checkpoints; ``detector`` is frozen afterwards. Bytes by file."""
    from ..models.checkpoint import checkpoint_bytes, freeze
    from ..runtime.files import write_atomically

    contents = {latent: checkpoint_bytes(detector, notes)} if latent is not None else {}
    contents[output] = checkpoint_bytes(freeze(detector), notes)
    for path, held in contents.items():
        write_atomically(path, held)
    return {str(path): len(held) for path, held in contents.items()}


def _compare(
    source: Detector, calibrated: Detector, samples: list[Sample], report: Report
) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy and average precision by generator: of ``source`` and of ``calibrated``."""
    from ..calibration.evaluate import scores_of
    from ..runtime.metrics import by_generator

    found = {}
    for name, detector in (("source", source), ("calibrated", calibrated)):
        scores = scores_of(
            detector,
            samples,
            report=lambda done, name=name: report(f"measuring {name}", done, len(samples)),  # type: ignore[misc]
        )
        found[name] = {g: m._asdict() for g, m in by_generator(samples, scores).items()}
    return found


def _print_result(result: dict[str, Any], found: Sequence[LayerRange], layers: bool) -> None:
    slr = " under SLR" if result["slr"] else ""
    print_line(
        f"{result['arch']}, {result['bits']} bits, {result['method']}{slr}: calibrated on "
        f"{result['images']} images in {result['seconds']:.0f} s"
    )
    for name, size in result["files"].items():
        print_line(f"  {name}  {size:,} bytes")
    _print_remarks(found)
    if layers:
        print_line("")
        print_table(
            ("layer", "bits", "seen", "codes cover", "step", "clipped", "off"),
            [_row(layer) for layer in found],
        )
    if result["metrics"]:
        print_line("")
        _print_metrics(result["metrics"], result["bits"])


def _print_remarks(found: Sequence[LayerRange]) -> None:
    for layer in found:
        if layer.dead_channels:
            print_line(f"{layer.layer}: {layer.dead_channels} output channels have no weight but 0")
        if layer.seen is not None and layer.seen[0] == layer.seen[1]:
            print_line(f"{layer.layer}: its input is {layer.seen[0]:g} everywhere")


def _row(layer: LayerRange) -> tuple[object, ...]:
    if layer.seen is None or layer.low is None or layer.high is None:
        return (layer.layer, layer.bits, "(the codes of conv1)", "", "", "", "")
    return (
        layer.layer,
        layer.bits,
        f"{layer.seen[0]:.3f} .. {layer.seen[1]:.3f}",
        f"{layer.low:.3f} .. {layer.high:.3f}",
        f"{layer.step:.4g}",
        f"{100 * (layer.clipped or 0):.3f} %",
        "" if layer.offset is None else f"{layer.offset:.3f}",
    )


def _print_metrics(metrics: dict[str, dict[str, dict[str, float]]], bits: int) -> None:
    source, calibrated = metrics["source"], metrics["calibrated"]
    rows: list[tuple[object, ...]] = []
    for name, before in source.items():
        after = calibrated[name]
        cells = (f"{m[key]:.4f}" for key in ("acc", "ap") for m in (before, after))
        rows.append((name, before["images"], *cells))
    means = [
        sum(m[key] for m in table.values()) / len(table)
        for key in ("acc", "ap")
        for table in (source, calibrated)
    ]
    total = sum(int(m["images"]) for m in source.values())
    rows.append(("mean", total, *(f"{value:.4f}" for value in means)))
    name = f"{bits} bits"
    print_table(("generator", "images", "Acc", f"Acc {name}", "AP", f"AP {name}"), rows)
