"""``qmdd build``: a bundle's engine, audited."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import CommandError, on_interrupt
from .options import FILE, debug_option, json_option
from .output import print_json, print_line, progress, stdout_for_results

#: As :data:`qmdd.exporter.engine.build.TIMEOUT`; a test holds the two together.
TIMEOUT = 3600


@click.command("build")
@click.argument("bundle", type=FILE)
@click.option(
    "--target", metavar="NAME", help="What to build for; default: what BUNDLE was exported for."
)
@click.option(
    "--workspace",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Most scratch memory of one layer; default: the target's.",
)
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=TIMEOUT,
    show_default=True,
    metavar="S",
    help="Seconds that the builder may take.",
)
@click.option(
    "--memory-limit",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Memory that the builder may take; default: 3/4 of the device's.",
)
@click.option(
    "--batch",
    default="1",
    show_default=True,
    metavar="N|MIN:BEST:MAX",
    help="Images at once.",
)
@click.option(
    "--side",
    metavar="N|MIN:BEST:MAX",
    help="Height and width of images; default: 256.",
)
@click.option(
    "--allow-fallback",
    is_flag=True,
    help="Keep an engine in which layers do not run as planned.",
)
@json_option
@debug_option
def command(
    bundle: Path,
    target: str | None,
    workspace: int | None,
    timeout: int,
    memory_limit: int | None,
    batch: str,
    side: str | None,
    allow_fallback: bool,
    as_json: bool,
) -> None:
    """Build the TensorRT engine of BUNDLE and audit it, layer by layer.

    Engine, layer table, log and a sidecar become a part of BUNDLE. For a Jetson, run this on the
    device; engines for RTX cards are built anywhere. If a layer does not run in the precision that
    was planned, the exit code is 1 and BUNDLE stays as it was.

    \b
    qmdd build bundle
    qmdd build bundle --target rtx-ada --side 32:256:512
    """
    from ..exporter.engine.build import build_engine
    from ..exporter.engine.request import bounds_of
    from ..exporter.errors import ExportError
    from ..exporter.targets import find_target

    try:
        if target is not None:
            find_target(target)
        for option, text in (("--batch", batch), ("--side", side)):
            if text is not None:
                bounds_of(text, option, 1, 1 << 16)
    except ExportError as error:
        raise click.UsageError(str(error)) from error
    on_interrupt(lambda: f"nothing was added: {bundle} is as it was")
    with stdout_for_results(), progress() as report:
        result = build_engine(
            bundle,
            target=target,
            workspace_mib=workspace,
            timeout=timeout,
            memory_limit_mib=memory_limit,
            batch=batch,
            side=side,
            allow_fallback=allow_fallback,
            report=report,
        )
    on_interrupt(lambda: f"{bundle} is complete")

    from .engines import faults_in_words, print_findings, print_record

    if as_json:
        print_json(result.to_dict())
    else:
        print_record(result.record)
        print_findings(result.audit)
        if result.engine is not None:
            print_line(f"engine: {result.engine}")
    if result.engine is None:
        raise CommandError(
            f"{bundle}: the engine is not what was planned and was not added: "
            f"{faults_in_words(result.audit)}; --allow-fallback adds it all the same"
        )
