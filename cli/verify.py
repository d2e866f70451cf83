"""``qmdd verify``: does a bundle still compute what its source computes?"""

from __future__ import annotations

from pathlib import Path

import click

from .errors import CommandError
from .options import (
    FILE,
    checkpoint_or_name,
    debug_option,
    image_files,
    images_option,
    json_option,
    module_option,
    runtime_option,
    threads_option,
    use_threads,
)
from .output import (
    missed_parity,
    print_json,
    print_line,
    print_parity,
    progress,
    stdout_for_results,
)

TIERS = ("strict", "deployed")


@click.command("verify")
@click.argument("bundle", type=FILE)
@click.option(
    "--checkpoint",
    type=FILE,
    callback=checkpoint_or_name,
    metavar="FILE|NAME",
    help="The source; default: the built-in checkpoint with the hash that the bundle names.",
)
@module_option
@images_option
@click.option(
    "--tier",
    type=click.Choice([*TIERS, "both"]),
    default="both",
    show_default=True,
    help="strict: ONNX Runtime, its optimiser off; deployed: as the bundle's runtime runs it.",
)
@click.option("--layers", is_flag=True, help="Print every quantised layer.")
@runtime_option
@threads_option
@json_option
@debug_option
def command(
    bundle: Path,
    checkpoint: Path | None,
    module: str | None,
    images: tuple[Path, ...],
    tier: str,
    layers: bool,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare BUNDLE with the PyTorch checkpoint it was exported from.

    Integer codes at every quantizer, logits and verdicts are compared on the images given. If a
    code or a verdict differs, or a logit by more than 1e-5, or a layer that was lowered to INT8
    runs in float, the exit code is 1.

    \b
    qmdd verify bundle
    qmdd verify bundle --checkpoint runs/mine/frozen.safetensors --images photos/
    """
    if module is not None and checkpoint is not None:
        raise click.UsageError("--module and --checkpoint exclude each other")
    files = image_files(images)

    from ..exporter.parity import verify_bundle

    use_threads(threads)
    with stdout_for_results(), progress() as report:
        result = verify_bundle(
            bundle,
            checkpoint=checkpoint,
            module=module,
            images=files,
            tiers=TIERS if tier == "both" else (tier,),
            threads=threads,
            runtime=runtime,
            report=report,
        )
    data = result.to_dict()
    if as_json:
        print_json(data)
    else:
        print_line(f"{data['arch']}, {data['bits']} bits, target {data['target']}")
        print_line("")
        print_parity(data["parity"], layers=layers)
        print_line("")
        print_line(f"verified in {data['seconds']:.1f} s: {data['bundle']}")
    if not result.passed:
        raise CommandError(
            f"{bundle}: parity missed ({missed_parity(data['parity'])}); do not ship this bundle"
        )
