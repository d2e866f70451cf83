"""``qmdd inspect``: a bundle's layers, planned against built."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import CommandError, needs_extra
from .options import FILE, debug_option, json_option
from .output import print_json, print_line, stdout_for_results


@click.command("inspect")
@click.argument("bundle", type=FILE)
@click.option("--plot", type=FILE, metavar="FILE", help="Draw it, too: a .png, .svg or .pdf file.")
@click.option(
    "--check",
    is_flag=True,
    help="Fail if this machine may not load the engine (another TensorRT, GPU or system).",
)
@json_option
@debug_option
def command(bundle: Path, plot: Path | None, check: bool, as_json: bool) -> None:
    """Show BUNDLE layer by layer: precision planned and built, how weights are held, bytes.

    With an engine: what fell back to floating point, what TensorRT inserted and what it warned of.
    Without one: what is planned; for OpenVINO, which compiles a model when it loads it, what it
    makes of it on this machine. An engine that is not as planned ends with exit code 1.

    \b
    qmdd inspect bundle
    qmdd inspect bundle --plot layers.svg
    """
    from ..exporter.engine.inspect import inspect_bundle

    if plot is not None:
        from ..runtime.plot import check_plot

        if not plot.parent.is_dir():
            raise CommandError(f"{plot.parent}: no such folder; make it, or choose another --plot")
        check_plot(plot)
    needs_extra("export")
    with stdout_for_results():
        found = inspect_bundle(bundle)

    from .engines import faults_in_words, print_audit, print_record

    if as_json:
        print_json(found.to_dict())
    else:
        print_line(f"{found.bundle.arch}, {found.bundle.bits} bits, target {found.bundle.target}")
        if found.record is None:
            print_line(f"{found.label}; model.onnx {found.bundle.model_bytes:,} bytes")
        else:
            print_record(found.record)
        print_line("")
        print_audit(found.audit, engine=not found.compiled_here)
    if plot is not None:
        from ..exporter.engine.plot import plot_bytes
        from ..runtime.files import write_atomically

        write_atomically(plot, plot_bytes(found, plot))
    if check:
        from ..runtime.engine import check_engine

        check_engine(found.bundle)
    if not found.audit.passed:
        told = faults_in_words(found.audit)
        raise CommandError(f"{bundle}: its engine is not as planned: {told}")
