"""``qmdd verify``: does a bundle still compute what its source computes?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import CommandError, needs_extra
from .options import (
    FILE,
    checkpoint_or_name,
    debug_option,
    image_files,
    images_option,
    json_option,
    module_option,
    no_nan,
    runtime_option,
    threads_option,
    use_threads,
)
from .output import (
    Report,
    missed_parity,
    print_json,
    print_line,
    print_parity,
    progress,
    stdout_for_results,
)

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle
    from ..runtime.parity import VerifyResult
    from ..runtime.session import Session

TIERS = ("strict", "deployed")
_ALONE = "torch is not installed: the bundle's golden results took the checkpoint's place"


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
@click.option(
    "--golden",
    is_flag=True,
    help="Compare with the results that BUNDLE itself holds: no checkpoint, no torch.",
)
@click.option("--layers", is_flag=True, help="Print every quantised layer.")
@click.option(
    "--code-budget",
    type=click.FloatRange(0, 1),
    callback=no_nan,
    metavar="F",
    help="Share of the codes that may differ in an engine (--golden); default: BUNDLE's own.",
)
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
    golden: bool,
    layers: bool,
    code_budget: float | None,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare BUNDLE with the PyTorch checkpoint it was exported from.

    Integer codes at every quantizer, logits and verdicts are compared on the images given. If a
    code or a verdict differs, or a logit by more than 1e-5, or a layer that was lowered to INT8
    runs in float, the exit code is 1. On a device, without torch, BUNDLE's own golden results take
    the checkpoint's place (--golden).

    \b
    qmdd verify bundle
    qmdd verify bundle --checkpoint runs/mine/frozen.safetensors --images photos/
    qmdd verify bundle --golden
    """
    if module is not None and checkpoint is not None:
        raise click.UsageError("--module and --checkpoint exclude each other")
    named = module is not None or checkpoint is not None or bool(images)
    if golden and named:
        raise click.UsageError("--golden excludes --checkpoint, --module and --images")
    tiers = TIERS if tier == "both" else (tier,)
    if code_budget is not None and named:
        raise click.UsageError("--code-budget is for --golden: a source's codes must all be equal")
    # Where no source is named and none can be run, the bundle's own results are what is left.
    alone = not named and find_spec("torch") is None
    with stdout_for_results(), progress() as report:
        if golden or alone:
            result = _against_golden(bundle, tiers, runtime, threads, code_budget, report)
        else:
            source = (checkpoint, module, image_files(images))
            result = _against_source(bundle, source, tiers, runtime, threads, report)
    if alone and not golden:
        result.notes.insert(
            0, "torch is not installed: the bundle's golden results took the checkpoint's place"
        )
    data = result.to_dict()
    if as_json:
        print_json(data)
    else:
        print_line(f"{data['arch']}, {data['bits']} bits, target {data['target']}")
        for note in data["notes"]:
            print_line(f"note: {note}")
        print_line("")
        print_parity(data["parity"], layers=layers)
        print_line("")
        how = "verified against its golden results" if data["against"] == "golden" else "verified"
        print_line(f"{how} in {data['seconds']:.1f} s: {data['bundle']}")
    if not result.passed:
        raise CommandError(
            f"{bundle}: parity missed ({missed_parity(data['parity'])}); do not ship this bundle"
        )


def _against_source(
    bundle: Path,
    source: tuple[Path | None, str | None, list[Path]],
    tiers: tuple[str, ...],
    runtime: str | None,
    threads: int | None,
    report: Report,
) -> VerifyResult:
    """Compare with the network in PyTorch; ``source``: checkpoint, module, images."""
    from ..exporter.parity import verify_bundle

    use_threads(threads)
    checkpoint, module, files = source
    return verify_bundle(
        bundle,
        checkpoint=checkpoint,
        module=module,
        images=files,
        tiers=tiers,
        threads=threads,
        runtime=runtime,
        report=report,
    )


def _against_golden(
    bundle: Path,
    tiers: tuple[str, ...],
    runtime: str | None,
    threads: int | None,
    code_budget: float | None,
    report: Report,
) -> VerifyResult:
    """Compare with what the bundle holds."""
    needs_extra("runtime")

    from ..runtime.golden_check import check_golden

    def rebuild(
        opened: Bundle, shapes: Sequence[tuple[int, ...]]
    ) -> AbstractContextManager[Session]:
        from ..exporter.engine.golden import probed_engine

        return probed_engine(opened, shapes, report)

    return check_golden(
        bundle,
        tiers=tiers,
        threads=threads,
        runtime=runtime,
        rebuild=rebuild,
        code_budget=code_budget,
        report=report,
    )
