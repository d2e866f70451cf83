"""``qmdd estimate``: the least time of a bundle on a device, from the device's data sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import CommandError, on_interrupt
from .options import FILE, debug_option, json_option
from .output import print_json, print_line, print_table, stdout_for_results

if TYPE_CHECKING:
    from ..exporter.estimating import BundleEstimate

#: As in :mod:`qmdd.exporter.devices`, which is imported late; a test holds the two together.
PRECISIONS = ("int8", "fp16", "fp32")


@click.command("estimate")
@click.argument("bundle", type=FILE)
@click.option(
    "--target",
    metavar="NAME",
    help="A Jetson (orin-nano, orin-nano@5.1, ...) or RTX generation (rtx-ada, ...); default: what "
    "the bundle was exported for.",
)
@click.option(
    "--precision",
    type=click.Choice([*PRECISIONS, "all"]),
    default="all",
    show_default=True,
    help="Width of what is computed; all: side by side.",
)
@click.option(
    "--side",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="Side of the images, pixels.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    metavar="N",
    help="Images at a time.",
)
@click.option(
    "--mode",
    metavar="NAME",
    help="Power mode; default: the fastest that the target's JetPack has.",
)
@click.option("--no-layers", is_flag=True, help="Leave the rows of single kernels out.")
@json_option
@click.option("--plot", type=FILE, metavar="FILE", help="Draw it: a .png, .svg or .pdf file.")
@debug_option
def command(
    bundle: Path,
    target: str | None,
    precision: str,
    side: int,
    batch: int,
    mode: str | None,
    no_layers: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Estimate the least time of BUNDLE on a device that is not here: a roofline.

    For each kernel: operations over the device's peak rate, bytes over its bandwidth, the larger of
    the two, and which it is. The figures are *estimated*, never measured: a real engine is slower.
    The bundle may be lowered for any target; the device's numbers are printed with their sources.

    \b
    qmdd estimate out/resnet23-w2a2-onnx --target orin-nano
    qmdd estimate out/resnet23-w2a2-onnx --target orin-nano@5.1 --precision int8 --json
    """
    _check_plot(plot)

    from ..exporter.estimating import estimate_bundle

    on_interrupt(lambda: "nothing was written")
    with stdout_for_results():
        found = estimate_bundle(
            bundle, target, precision=precision, side=side, batch=batch, mode=mode
        )
    if plot is not None:
        from ..exporter.estimate_plot import plot_bytes
        from ..runtime.files import write_atomically

        write_atomically(plot, plot_bytes(found, plot))
        on_interrupt(lambda: f"{plot} is written")
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, layers=not no_layers)


def _check_plot(plot: Path | None) -> None:
    """Refuse before the work what could not be drawn or written after it."""
    if plot is None:
        return

    from ..runtime.plot import check_plot

    check_plot(plot)
    if plot.is_dir():
        raise CommandError(f"{plot}: a folder; name a file with --plot")
    if not plot.parent.is_dir():
        raise CommandError(f"{plot.parent}: no such folder; make it, or choose another --plot")


def _print(found: BundleEstimate, *, layers: bool) -> None:
    from ..exporter import estimate_report as report

    print_line(report.title(found))
    print_line("")
    tables = [report.kind_table(found), report.total_table(found)]
    for table in [report.layer_table(found), *tables] if layers else tables:
        print_table(table.columns, table.rows)
        print_line("")
    for line in report.bottlenecks(found):
        print_line(line)
    print_line("")
    print_line("Rests on:")
    for line in found.assumptions:
        print_line(f"* {line}")
    for line in (*found.notes, *found.left_out):
        print_line(f"* {line}")
    print_line("")
    print_line("The device's numbers:")
    for line in report.sources(found):
        print_line(f"* {line}")
