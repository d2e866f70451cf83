"""``qmdd bench``: how fast a bundle is on this machine, beside its full-precision twin."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import CommandError, on_interrupt
from .options import FILE, RUNTIMES, check_output_file, debug_option, image_files, json_option
from .output import print_json, progress, stdout_for_results

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle

_WITHOUT_TORCH = (
    "torch is not installed here: pip install 'qmdd[export]', or write the twin where it is (qmdd "
    "bench BUNDLE --write-twin FILE) and give the file with --twin"
)


def _numbers(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """A list such as ``1,8``; none where nothing was asked for."""
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(","))) if text else ()
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list such as 1,8") from error
    if any(not 1 <= number <= 1024 for number in found):
        raise click.BadParameter(f"{text!r}: each must be within 1..1024")
    return found


@click.command("bench")
@click.argument("bundle", type=FILE)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=click.Choice(RUNTIMES),
    help="What runs the bundle; repeatable, to compare. Default: what would be used.",
)
@click.option(
    "--batch",
    "batches",
    callback=_numbers,
    metavar="LIST",
    help="Images at a time; default: 1,8, of an engine those that it takes.",
)
@click.option(
    "--threads", callback=_numbers, metavar="LIST", help="Default: one, and one for each core."
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Side of the images, pixels; default: 256, or the images' own.",
)
@click.option(
    "--images",
    multiple=True,
    type=FILE,
    metavar="PATH",
    help="Image or folder to run on; repeatable. Default: the bundle's golden images.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=30,
    show_default=True,
    metavar="S",
    help="Time to measure for, in all.",
)
@click.option(
    "--twin",
    type=FILE,
    metavar="FILE",
    help="The full-precision twin's ONNX file; default: made here, if torch is installed.",
)
@click.option(
    "--write-twin", type=FILE, metavar="FILE", help="Write the twin for --twin; measure nothing."
)
@click.option("--no-twin", is_flag=True, help="Compare with no twin.")
@click.option("--force", is_flag=True, help="With --write-twin: replace a file that exists.")
@json_option
@click.option("--plot", type=FILE, metavar="FILE", help="Draw it: a .png, .svg or .pdf file.")
@debug_option
def command(
    bundle: Path,
    runtimes: tuple[str, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    size: int | None,
    images: tuple[Path, ...],
    seconds: float,
    twin: Path | None,
    write_twin: Path | None,
    no_twin: bool,
    force: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure BUNDLE on this machine: latency, throughput, memory, loading.

    Each number of threads and each batch gets fresh processes, in which the bundle and its
    full-precision twin take turns; their ratio says more than milliseconds, which differ from
    minute to minute. What stands before and behind the session is timed apart.

    \b
    qmdd bench bundle
    qmdd bench bundle --threads 1 --batch 1 --seconds 10 --json
    qmdd bench bundle --runtime onnxruntime --runtime openvino --plot bench.svg
    """
    if sum((twin is not None, write_twin is not None, no_twin)) > 1:
        raise click.UsageError("--twin, --write-twin and --no-twin exclude each other")

    from ..runtime.bundle import Bundle

    on_interrupt(lambda: "nothing was written")
    if write_twin is not None:
        check_output_file(
            write_twin,
            bundle / "model.onnx",
            "the bundle's own model",
            force=force,
            option="--write-twin",
        )
        _write_twin(Bundle.open(bundle), write_twin)
        return
    _check_plot(plot, bundle)
    files = image_files(images)
    opened = Bundle.open(bundle)

    from ..runtime.bench import bench, chosen_runtimes
    from ..runtime.bench_inputs import find_inputs
    from ..runtime.sessions import sides_for

    # Both refused before the twin is made.
    sides = sides_for(opened, chosen_runtimes(opened, runtimes))
    _check_size(opened, size, sides, bool(files))
    inputs = find_inputs(opened, files, size, sides=sides)
    with ExitStack() as stack:
        stack.enter_context(stdout_for_results())
        missing = "left out with --no-twin" if no_twin else ""
        if twin is None and not no_twin:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            twin, missing = _make_twin(opened, folder / "twin.onnx")
        report = stack.enter_context(progress())
        found = bench(
            opened,
            inputs,
            runtimes=runtimes,
            threads=threads,
            batches=batches,
            seconds=seconds,
            twin=twin,
            no_twin=missing,
            report=report,
        )
    if plot is not None:
        from ..runtime.bench_plot import plot_bytes
        from ..runtime.files import write_atomically

        write_atomically(plot, plot_bytes(found, plot))
        on_interrupt(lambda: f"{plot} is written")
    if as_json:
        print_json(found.to_dict())
    else:
        from .benchmark import print_benchmark

        print_benchmark(found)


def _check_plot(plot: Path | None, bundle: Path) -> None:
    """Refuse before the work what could not be drawn or written after it."""
    if plot is None:
        return

    from ..runtime.plot import check_plot

    check_plot(plot)
    model = bundle / "model.onnx"
    check_output_file(plot, model, "the bundle's own model", force=True, option="--plot")


def _check_size(bundle: Bundle, size: int | None, sides: dict[str, int], given: bool) -> None:
    from ..runtime.bench_inputs import SIDE, size_fault

    fault = size_fault(bundle, SIDE if size is None else size, sides)
    if fault and size is not None:
        raise click.UsageError(f"--size: {fault}")
    if fault and not given:
        raise CommandError(f"{fault}; choose a --size")


def _make_twin(bundle: Bundle, path: Path) -> tuple[Path | None, str]:
    """The twin's file, or why there is none."""
    from importlib.util import find_spec

    if find_spec("torch") is None or find_spec("onnx_graphsurgeon") is None:
        return None, _WITHOUT_TORCH

    from ..exporter.errors import ExportError

    try:
        _write_twin(bundle, path)
    except ExportError as error:
        return None, str(error)
    return path, ""


def _write_twin(bundle: Bundle, path: Path) -> None:
    from ..exporter.twin import twin_of_bundle
    from ..runtime.files import write_atomically

    write_atomically(path, twin_of_bundle(bundle))
