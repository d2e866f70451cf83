"""``qmdd freeze``: a latent checkpoint to integer codes, scales and threshold tables."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import CommandError, on_interrupt
from .options import FILE, check_output_file, debug_option, json_option
from .output import print_json, print_line, stdout_for_results


@click.command("freeze")
@click.argument("latent", type=FILE)
@click.option(
    "-o", "--output", required=True, type=FILE, metavar="FILE", help="Frozen checkpoint to write."
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@json_option
@debug_option
def command(latent: Path, output: Path, force: bool, as_json: bool) -> None:
    """Freeze the checkpoint LATENT: every weight becomes an integer code, packed.

    The frozen checkpoint computes the same function, bit for bit, in a fraction of the bytes. It
    cannot be trained on; keep the latent one for that.
    """
    check_output_file(output, latent, "the latent checkpoint", force=force)

    from ..models.checkpoint import FROZEN, Checkpoint, checkpoint_bytes, freeze
    from ..runtime.files import write_atomically

    on_interrupt(lambda: f"nothing was written: {output} is as it was")
    with stdout_for_results():
        source = Checkpoint(latent)
        if source.form == FROZEN:
            raise CommandError(f"{latent}: frozen already; export it as it is")
        own = ("format", "version", "config")
        notes = {key: text for key, text in source.metadata.items() if key not in own}
        frozen = checkpoint_bytes(freeze(source.detector()), notes)
        write_atomically(output, frozen)
    result = {
        "checkpoint": str(output),
        "arch": source.config.arch,
        "bits": source.config.bits,
        "latent_bytes": latent.stat().st_size,
        "frozen_bytes": len(frozen),
    }
    if as_json:
        print_json(result)
    else:
        print_line(f"{source.config.arch}, {source.config.bits} bits")
        print_line(f"{latent}: {result['latent_bytes']:,} bytes")
        print_line(f"{output}: {len(frozen):,} bytes")
