"""``qmdd export``: a checkpoint to a bundle, with proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import CommandError, on_interrupt
from .options import (
    DEFAULT_ARCH,
    DEFAULT_BITS,
    FILE,
    FULL_PRECISION,
    arch_option,
    bits_option,
    checkpoint_or_name,
    debug_option,
    image_files,
    images_option,
    json_option,
    module_option,
)
from .output import (
    missed_parity,
    print_json,
    print_line,
    print_parity,
    progress,
    stdout_for_results,
)
from .serving import REPOSITORY, Serving, check_serving, print_served, serve, serve_options

DIALECTS = ("onnx", "qonnx")

if TYPE_CHECKING:
    from ..exporter.export import ExportResult
    from ..exporter.source import Source


@click.command("export")
@click.option(
    "--checkpoint",
    type=FILE,
    callback=checkpoint_or_name,
    metavar="FILE|NAME",
    help="Checkpoint made by qmdd train or freeze, or a built-in one's name (qmdd zoo).",
)
@module_option
@bits_option(f"the checkpoint's, else {DEFAULT_BITS}")
@arch_option(f"the checkpoint's, else {DEFAULT_ARCH}")
@click.option("--target", metavar="NAME", help="What to lower the model for; default: onnx.")
@click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    help="Operators to write; default: onnx. qonnx: MultiThreshold and Quant, for FPGA flows.",
)
@images_option
@click.option(
    "--weights",
    type=click.Choice(["int2", "int4", "int8"]),
    help="How weights are stored; default: at their own width, in engines int8.",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "int4"]),
    help="Of an engine's weights, where its target has a choice; default: int8.",
)
@click.option(
    "--opset",
    type=click.IntRange(min=1),
    metavar="N",
    help="ONNX opset to write; default: the target's.",
)
@click.option(
    "--allow-microsoft",
    is_flag=True,
    help="For --target cpu: write operators that ONNX Runtime alone has (com.microsoft).",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare the result with its source, code by code.",
)
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@click.option("--explain", is_flag=True, help="Print which passes applied, and why others did not.")
@json_option
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="DIR",
    help="Bundle folder to write; default: ARCH-wBITSaBITS-TARGET here. With --serve: model "
    f"repository, to be made or added to; default: {REPOSITORY} here.",
)
@serve_options
@debug_option
def command(
    checkpoint: Path | None,
    module: str | None,
    bits: int | None,
    arch: str | None,
    target: str | None,
    dialect: str | None,
    images: tuple[Path, ...],
    weights: str | None,
    precision: str | None,
    opset: int | None,
    allow_microsoft: bool,
    verify: bool,
    force: bool,
    explain: bool,
    as_json: bool,
    output: Path | None,
    **serving_options: Any,
) -> None:
    """Turn a checkpoint into a bundle that any ONNX runtime can run, and prove it exact.

    Every activation code of the exported model is compared with the PyTorch source on the images
    given, with the runtime's optimiser off and on. If one differs, the exit code is 1.

    \b
    qmdd export --bits 2
    qmdd export --checkpoint runs/mine/frozen.safetensors --images photos/ -o bundle
    qmdd export --bits 2 --serve triton -o models
    """
    serving = Serving(**serving_options)
    check_serving(serving)
    if serving.bundle:
        _serve(serving, output, None, as_json)
        return
    if module is not None and (checkpoint, bits, arch) != (None, None, None):
        raise click.UsageError("--module brings its own network; leave the other options out")
    target = _target(target, dialect)

    from ..exporter.errors import ExportError
    from ..exporter.storage import check_microsoft, choose_storage
    from ..exporter.targets import find_target

    try:
        found = find_target(target)
    except ExportError as error:
        raise click.BadParameter(str(error), param_hint="'--target'") from error
    try:
        choose_storage(found, weights, opset, precision)
        check_microsoft(found, allow_microsoft)
    except ExportError as error:
        raise click.UsageError(str(error)) from error
    files = image_files(images)

    from ..exporter.export import export_bundle

    source = _source(checkpoint, module, arch, bits)
    place = output or Path(f"{source.arch}-{_width(source.bits)}-{target}")
    on_interrupt(lambda: f"nothing was written: {place} is as it was")

    def export_to(folder: Path) -> ExportResult:
        with stdout_for_results(), progress() as report:
            return export_bundle(
                source,
                folder,
                target=target,
                images=files,
                weights=weights,
                precision=precision,
                opset=opset,
                microsoft=allow_microsoft,
                verify=verify,
                force=force,
                report=report,
            )

    if serving.serve:
        _serve(serving, output, export_to, as_json, explain)
        return
    result = export_to(place)
    on_interrupt(lambda: f"{place} is complete")
    if as_json:
        print_json(result.to_dict())
    else:
        _print_result(result, explain)
    if not result.passed:
        raise CommandError(
            f"{place}: parity missed ({missed_parity(result.to_dict()['parity'])}); "
            "do not ship this bundle"
        )


def _serve(
    serving: Serving,
    output: Path | None,
    export: Callable[[Path], ExportResult] | None,
    as_json: bool,
    explain: bool = False,
) -> None:
    place = output or Path(REPOSITORY)
    on_interrupt(lambda: f"{place} is as it was, or has the whole new version")
    result = serve(serving, place, export)
    if as_json:
        print_json(result.to_dict())
        return
    if result.export is not None:
        _print_result(result.export, explain)
    print_served(result)


def _target(target: str | None, dialect: str | None) -> str:
    """The target that the two options mean; each dialect is a target of its own."""
    if dialect is None or target in (None, dialect):
        return target or dialect or "onnx"
    if dialect == "qonnx":
        raise click.UsageError(
            f"--dialect qonnx is for FPGA flows, --target {target} is not; leave --target out, or "
            "export for both, one after the other"
        )
    if target == "qonnx":
        raise click.UsageError(
            "--target qonnx is written in --dialect qonnx, not onnx; leave --dialect out"
        )
    return str(target)


def _source(
    checkpoint: Path | None, module: str | None, arch: str | None, bits: int | None
) -> Source:
    """What to export; :class:`CommandError` if it is not what the options ask for."""
    from ..exporter.source import source_from_checkpoint, source_from_module

    if module is not None:
        return source_from_module(module)
    if checkpoint is None:
        return source_from_checkpoint(_builtin(arch or DEFAULT_ARCH, bits or DEFAULT_BITS))
    _check_checkpoint(checkpoint, arch, bits)
    return source_from_checkpoint(checkpoint)


def _check_checkpoint(path: Path, arch: str | None, bits: int | None) -> None:
    from ..models.checkpoint import Checkpoint

    config = Checkpoint(path).config
    for option, asked, held in (("--arch", arch, config.arch), ("--bits", bits, config.bits)):
        if asked is not None and asked != held:
            raise CommandError(
                f"{path}: {option} {asked} does not fit this checkpoint, which has {held}; "
                f"leave {option} out, or name another checkpoint"
            )


def _width(bits: int) -> str:
    return f"w{bits}a{bits}" if bits < FULL_PRECISION else "fp32"


def _builtin(arch: str, bits: int) -> Path:
    from ..models.zoo import builtin_checkpoint, builtin_checkpoints

    found = builtin_checkpoint(arch, bits)
    if found is None:
        names = ", ".join(path.stem for path in builtin_checkpoints()) or "none"
        raise CommandError(
            f"no built-in checkpoint of {arch} at {bits} bits (built in: {names}); "
            "name your own with --checkpoint"
        )
    return found


def _print_result(result: ExportResult, explain: bool) -> None:
    data = result.to_dict()
    full, small = data["size"]["fp32_bytes"], data["model_bytes"]
    ratio = f", {full / small:.1f} times smaller" if small < 0.9 * full else ""
    if data["bits"] == FULL_PRECISION:
        print_line(f"{data['arch']}, full precision, target {data['target']}")
        print_line(f"model.onnx {small:,} bytes")
    else:
        print_line(f"{data['arch']}, {data['bits']} bits, target {data['target']}")
        print_line(f"{full:,} bytes in full precision -> model.onnx {small:,} bytes{ratio}")
    print_line(f"exported in {data['seconds']:.1f} s")
    print_line("")
    if explain:
        for line in data["explain"]:
            print_line(f"  {line}")
        print_line("")
    if data["parity"]:
        print_parity(data["parity"])
        print_line("")
    else:
        print_line("not verified: run qmdd verify before you ship it")
    print_line(f"bundle: {data['bundle']}")
