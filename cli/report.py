"""``qmdd report``: a bundle's report, one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import on_interrupt
from .options import (
    FILE,
    check_output_file,
    checkpoint_or_name,
    debug_option,
    image_files,
    json_option,
    module_option,
    threads_option,
    use_threads,
)
from .output import print_json, print_line, progress, stdout_for_results


@click.command("report")
@click.argument("bundle", type=FILE)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="The HTML file to write.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option(
    "--checkpoint",
    type=FILE,
    callback=checkpoint_or_name,
    metavar="FILE|NAME",
    help="The source; default: the built-in checkpoint with the hash that the bundle names.",
)
@module_option
@click.option("--golden", is_flag=True, help="Show what BUNDLE itself holds: no source, no torch.")
@click.option(
    "--images",
    multiple=True,
    type=FILE,
    metavar="PATH",
    help="Image or folder to show, at most 8 of them; repeatable. Default: the sample images.",
)
@click.option("--bench", is_flag=True, help="Measure shortly, beside the full-precision twin.")
@click.option(
    "--bench-json", type=FILE, metavar="FILE", help="Show what qmdd bench --json wrote to FILE."
)
@threads_option
@json_option
@debug_option
def command(
    bundle: Path,
    output: Path | None,
    force: bool,
    checkpoint: Path | None,
    module: str | None,
    golden: bool,
    images: tuple[Path, ...],
    bench: bool,
    bench_json: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write one HTML file that shows BUNDLE: exact or not, its size, every layer, what it sees.

    The file needs no network and no script. It is made from the bundle alone; with its source
    checkpoint it also shows every quantizer, the weights and the heat maps. A result that misses
    its bar is shown, and is no failure of this command.

    \b
    qmdd report bundle -o report.html
    qmdd report bundle -o report.html --bench
    qmdd report bundle --json
    """
    if output is None and not as_json:
        raise click.UsageError("name the file to write with -o, or ask for --json")
    if module is not None and checkpoint is not None:
        raise click.UsageError("--module and --checkpoint exclude each other")
    if golden and (module is not None or checkpoint is not None):
        raise click.UsageError("--golden excludes --checkpoint and --module")
    if bench and bench_json is not None:
        raise click.UsageError("--bench and --bench-json exclude each other")
    if output is not None:
        check_output_file(output, bundle / "manifest.json", "the bundle's manifest", force=force)
    files = image_files(images)

    from ..exporter.report.gather import Asked, gather
    from ..exporter.report.page import page
    from ..runtime.files import write_atomically

    on_interrupt(lambda: "nothing was written")
    with stdout_for_results(), progress() as say:
        if not golden and threads is not None:
            use_threads(threads)
        asked = Asked(checkpoint, module, golden, files, bench, bench_json, threads)
        found = gather(bundle, asked, say)
        # A file may have a name that is no text.
        data = page(found).encode(errors="backslashreplace") if output is not None else b""
    if output is not None:
        write_atomically(output, data)
    if as_json:
        print_json(found.data)
        return
    for line in found.data["verdict"]:
        print_line(f"{line['question']:10} {line['answer']}")
    print_line(f"wrote {output} ({len(data):,} bytes)")
