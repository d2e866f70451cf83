"""Options that several commands share, and what they mean."""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .errors import CommandError, State, printable

if TYPE_CHECKING:
    from ..runtime.inputs import Input

F = TypeVar("F", bound=Callable[..., Any])

#: The same names and widths as :mod:`qmdd.models.config`, which is not imported here because it
#: imports torch; a test holds the two together.
ARCHITECTURES = (
    "resnet23",
    "resnet34",
    "resnet50",
    "mobilenetv2",
    "npr_resnet50",
    "n2uq_resnet18",
    "n2uq_resnet34",
    "n2uq_resnet50",
)
REPRESENTATIONS = ("npr", "rgb")
QUANTIZERS = ("minmax", "lsq", "n2uq", "binary")
WIDTHS = ("1", "2", "3", "4", "8", "32")
#: The same as :data:`qmdd.runtime.sessions.RUNTIMES`, which is not imported here because it imports
#: numpy; a test holds the two together.
RUNTIMES = ("onnxruntime", "native", "openvino", "tensorrt")
#: The same as :data:`qmdd.runtime.detector.EVERY`, for the same reason.
EVERY = 10
DEFAULT_ARCH, DEFAULT_BITS = "resnet23", 2
FULL_PRECISION = 32

FILE = click.Path(path_type=Path)


def _set_debug(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    state = ctx.find_root().obj
    if asked and isinstance(state, State):
        state.debug = True


def _number(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    return None if text is None else int(text)


def no_nan(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    """Callback of a number within a range."""
    """Callback of a number that lies in a range."""
    if value is not None and math.isnan(value):  # compares false with both ends of the range
        raise click.BadParameter("not a number")
    return value


def debug_option(command: F) -> F:
    """``--debug``, before or after the command's name."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_debug,
        help="Show the traceback of a failure.",
    )(command)


def json_option(command: F) -> F:
    """``--json``: the result on stdout for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


def threads_option(command: F) -> F:
    """``--threads N``."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads to compute with; default: one a core.",
    )(command)


def runtime_option(command: F) -> F:
    """``--runtime NAME``: what runs a bundle."""
    return click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        help="What runs a bundle; default: what it was exported for.",
    )(command)


def threshold_option(default: str) -> Callable[[F], F]:
    """``--threshold F``; ``default`` says in words what it is if it is left out."""
    return click.option(
        "--threshold",
        type=click.FloatRange(0, 1),
        callback=no_nan,
        metavar="F",
        help=f"Score above which an image is called fake; default: {default}.",
    )


def every_option(command: F) -> F:
    """``--every N``: which frames of a video are scored."""
    return click.option(
        "--every",
        type=click.IntRange(min=1),
        default=EVERY,
        metavar="N",
        help=f"Of a video, score the first of every N frames; default: {EVERY}.",
    )(command)


def checkpoint_or_name(
    _ctx: click.Context, _param: click.Parameter, given: Path | None
) -> Path | None:
    """Callback of ``--checkpoint``: a file, or the name of a built-in checkpoint."""
    from ..models.zoo import checkpoint_named

    return None if given is None else checkpoint_named(given)


def images_option(command: F) -> F:
    """``--images PATH``, repeatable."""
    return click.option(
        "--images",
        multiple=True,
        type=FILE,
        metavar="PATH",
        help="Image or folder to compare on; repeatable. Default: the sample images.",
    )(command)


def arch_option(default: str = DEFAULT_ARCH) -> Callable[[F], F]:
    """``--arch NAME``; ``default`` says in words what it is if it is left out."""
    return click.option(
        "--arch", type=click.Choice(ARCHITECTURES), help=f"Backbone; default: {default}."
    )


def bits_option(default: str = str(DEFAULT_BITS)) -> Callable[[F], F]:
    """``--bits N``; ``default`` says in words what it is if it is left out."""
    return click.option(
        "--bits",
        type=click.Choice(WIDTHS),
        callback=_number,
        help=f"Width of weights and activations, 32: full precision; default: {default}.",
    )


def topology_options(command: F) -> F:
    """What a detector is built of, beside its backbone and width: six options, ``None`` unasked."""
    options = (
        click.option(
            "--representation",
            type=click.Choice(REPRESENTATIONS),
            help="What the network sees: NPR residuals or RGB pixels; default: npr.",
        ),
        click.option("--cqb/--no-cqb", default=None, help="CQB's weighted shortcuts; default: on."),
        click.option("--slr/--no-slr", default=None, help="SLR around quantizers; default: on."),
        click.option(
            "--activation",
            type=click.Choice(QUANTIZERS),
            help="Activation quantizer; default: n2uq, at 1 bit binary.",
        ),
        click.option(
            "--weight",
            type=click.Choice(QUANTIZERS),
            help="Weight quantizer; default: n2uq, at 1 bit binary.",
        ),
        click.option(
            "--width",
            type=click.FloatRange(1 / 16, 4),
            metavar="F",
            help="Factor of all channel counts; default: 1.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def module_option(command: F) -> F:
    """``--module``: a network of our layers that is in no registry."""
    return click.option(
        "--module",
        metavar="PACKAGE.MODULE:FACTORY",
        help="In place of a checkpoint: a function of yours that returns the network. It is run.",
    )(command)


def image_files(given: Sequence[Path]) -> list[Path]:
    """The files that ``given`` names: each file itself, each folder's images in order.

    Raises:
        click.UsageError: paths were given, and there is no image in them.
    """
    from ..runtime.images import SUFFIXES, find_images

    found = list(find_images(given))
    if given and not found:
        where = ", ".join(str(path) for path in given)
        raise click.UsageError(
            f"no image found in {where} (looked for {' '.join(sorted(SUFFIXES))})"
        )
    return found


def inputs_of(paths: tuple[str, ...], null: bool) -> Iterator[Input]:
    """What ``paths`` name (``-``: a list on standard input), found when it is asked for.

    Raises:
        click.UsageError: there is nothing.
    """
    from ..runtime.inputs import STANDARD_INPUT, find_inputs, read_list

    listed: Iterator[Input] = iter(())
    if STANDARD_INPUT in paths:
        if sys.stdin is None:
            raise CommandError("standard input is closed; give a list of paths there")
        listed = read_list(sys.stdin.buffer, null=null)
    found = find_inputs(paths, listed)
    first = next(found, None)
    if first is None:
        where = ", ".join("standard input" if path == STANDARD_INPUT else path for path in paths)
        raise click.UsageError(f"no image or video found in {printable(where)}")
    return itertools.chain((first,), found)


def check_output_file(
    output: Path, source: Path, what: str, *, force: bool, option: str = "--output"
) -> None:
    """Refuse before the work what would be refused, or regretted, after it.

    Args:
        output: the file to write.
        source: the file that is read, which must not be overwritten.
        what: what ``source`` is, in words.
        force: replace a file that exists.
        option: by which ``output`` was named.

    Raises:
        CommandError: no place for ``output``.
    """
    if not output.parent.is_dir():
        raise CommandError(f"{output.parent}: no such folder; make it, or choose another {option}")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise CommandError(f"{output.parent}: may not be written to; choose another {option}")
    if output.is_dir():
        raise CommandError(f"{output}: a folder; name a file with {option}")
    if output.exists():
        if source.exists() and output.samefile(source):
            raise CommandError(f"{output}: {what} itself; choose another {option}")
        if not force:
            raise CommandError(f"{output}: exists; choose another {option} or add --force")


def use_threads(threads: int | None) -> None:
    """Let torch compute with ``threads`` threads; ``None`` leaves its default."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
