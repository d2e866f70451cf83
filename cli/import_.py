"""``qmdd import``: a published NPR or N2UQ checkpoint to one of ours, with an account of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import on_interrupt
from .options import FILE, WIDTHS, check_output_file, debug_option, json_option
from .output import print_json, print_line, print_table, progress, stdout_for_results

if TYPE_CHECKING:
    from ..models.foreign import Imported

#: The same names as in :mod:`qmdd.models.foreign`, which imports torch; a test holds them together.
FORMATS = ("npr", "n2uq")
_STEPS = 3


@click.command("import")
@click.argument("file", type=FILE)
@click.option(
    "-o", "--output", required=True, type=FILE, metavar="FILE", help="Latent checkpoint to write."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["auto", *FORMATS]),
    default="auto",
    show_default=True,
    help="Whose checkpoint it is; auto: told by the names in it.",
)
@click.option(
    "--bits",
    type=click.Choice(WIDTHS),
    help="Refuse the checkpoint if it is not of this width; default: the one it has.",
)
@click.option(
    "--ignore-unknown", is_flag=True, help="Leave out tensors that the format does not know."
)
@click.option(
    "--quantize-downsample",
    is_flag=True,
    help="N2UQ: quantise downsampling convolutions that are in full precision.",
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@json_option
@debug_option
def command(
    file: Path,
    output: Path,
    kind: str,
    bits: str | None,
    ignore_unknown: bool,
    quantize_downsample: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Read FILE, a checkpoint of the published NPR detector (.pth) or of N2UQ (.pth.tar).

    No code in the file is run. The report says of every tensor what it became, and what is unusual
    or differs from the published network. The result is a latent checkpoint: to export, or
    to train on from (qmdd train --init).

    \b
    qmdd import NPR.pth -o npr.safetensors
    qmdd export --checkpoint npr.safetensors -o bundle
    """
    check_output_file(output, file, "the checkpoint to read", force=force)

    from ..models.foreign import import_checkpoint
    from ..runtime.files import write_atomically

    on_interrupt(lambda: f"nothing was written: {output} is as it was")
    with stdout_for_results(), progress() as report:
        report("reading", 0, _STEPS)
        imported = import_checkpoint(
            file,
            format=None if kind == "auto" else kind,
            bits=None if bits is None else int(bits),
            ignore_unknown=ignore_unknown,
            quantize_downsample=quantize_downsample,
        )
        report("writing", 2, _STEPS)
        data = imported.checkpoint_bytes()
        write_atomically(output, data)
    if as_json:
        print_json({**imported.to_dict(), "checkpoint": str(output), "bytes": len(data)})
    else:
        _print_report(imported, output, len(data))


def _print_report(imported: Imported, output: Path, size: int) -> None:
    rows = [
        (row.source or "-", _shape(row.shape), row.ours or "-", _what(row.status, row.note))
        for row in imported.rows
    ]
    print_table(("in the file", "shape", "becomes", "what happened"), rows, text=True)
    config, counts = imported.detector.config, imported.counts
    width = "" if config.width == 1 else f", width {config.width:g}"
    bits = "full precision" if not config.quantized else f"{config.bits} bits"
    print_line("")
    print_line(f"{imported.source}: {imported.format}, {config.arch}, {bits}{width}")
    print_line("  " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    for note in imported.notes:
        print_line(f"  note: {note}")
    print_line(f"{output}: {size:,} bytes")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _what(status: str, note: str) -> str:
    return f"{status}: {note}" if note else status
