"""The options of ``qmdd export`` that write a model repository, and what is printed of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from .options import FILE
from .output import print_line

if TYPE_CHECKING:
    from ..exporter.export import ExportResult
    from ..exporter.triton.serve import ServeResult

F = TypeVar("F", bound=Callable[..., Any])

#: The same as :data:`qmdd.exporter.triton.settings.MAX_BATCH` and ``QUEUE_DELAY_US``; a test holds
#: them together.
MAX_BATCH, QUEUE_DELAY_US = 8, 2000
#: Where a repository is written unless asked otherwise.
REPOSITORY = "triton"


class Serving(NamedTuple):
    """What the options below were given."""

    serve: str | None
    bundle: tuple[Path, ...]
    name: str | None
    max_batch: int | None
    queue_delay_us: int | None
    device: str | None
    threads: int | None


def serve_options(command: F) -> F:
    """``--serve triton`` and what goes with it: the fields of :class:`Serving`."""
    options = (
        click.option(
            "--serve",
            type=click.Choice(["triton"]),
            help="Write a model repository for NVIDIA Triton instead of a bundle.",
        ),
        click.option(
            "--bundle",
            multiple=True,
            type=FILE,
            metavar="DIR",
            help="With --serve: a bundle that is there; repeatable, for engines of several GPUs.",
        ),
        click.option(
            "--name",
            metavar="NAME",
            help="With --serve: the model's name; default: ARCH-wBITSaBITS.",
        ),
        click.option(
            "--max-batch",
            type=click.IntRange(1, 1024),
            metavar="N",
            help=f"With --serve: most images in a batch; default: {MAX_BATCH}, or the engine's.",
        ),
        click.option(
            "--queue-delay-us",
            type=click.IntRange(0, 10_000_000),
            metavar="N",
            help="With --serve: microseconds that a batch waits to be filled; default: "
            f"{QUEUE_DELAY_US}.",
        ),
        click.option(
            "--device",
            type=click.Choice(["cpu", "gpu"]),
            help="With --serve: where it computes; default: cpu, engines: gpu.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="With --serve: threads on a CPU; default: one a core.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_serving(serving: Serving) -> None:
    """Refuse options that do not go together.

    Raises:
        click.UsageError: which, and what to do.
    """
    given = _given()
    if serving.serve is None:
        for name in Serving._fields:
            if name in given:
                raise click.UsageError(f"{given[name]} is for --serve triton; add that")
        return
    excluded = {"force", "verify"} & set(given)
    if serving.bundle:
        excluded |= set(given) - {*Serving._fields, "as_json", "output"}
    for name in sorted(excluded):
        reason = {
            "force": "a model repository is added to, never replaced",
            "verify": "only what is proven exact is served",
        }.get(name, "a --bundle is exported already")
        raise click.UsageError(f"{reason}; leave {given[name]} out")


def _given() -> dict[str, str]:
    """Parameters that stand on the command line, by name, as they are spelt in the help."""
    ctx = click.get_current_context()
    return {
        str(param.name): param.opts[0]
        for param in ctx.command.params
        if ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    }


def serve(
    serving: Serving, output: Path | None, export: Callable[[Path], ExportResult] | None
) -> ServeResult:
    """Write the repository: of ``serving.bundle``, or of what ``export`` makes.

    Raises:
        ExportError: see :mod:`qmdd.exporter.triton.serve`.
    """
    from ..exporter.triton.serve import serve_bundles, serve_export
    from ..exporter.triton.settings import Asked

    place = output or Path(REPOSITORY)
    asked = Asked(serving.max_batch, serving.queue_delay_us, serving.device, serving.threads)
    if export is not None:
        return serve_export(export, place, name=serving.name, asked=asked)
    return serve_bundles(serving.bundle, place, name=serving.name, asked=asked)


def print_served(result: ServeResult) -> None:
    """The repository in words."""
    s = result.settings
    batch = f"batches of at most {s.max_batch}" if s.max_batch > 1 else "one image at a time"
    print_line(f"model {s.name}, version {result.version}: {s.backend} on {s.device}, {batch}")
    if result.config_kept:
        print_line("its config.pbtxt was changed by hand and stays as it is")
    print_line(f"model repository: {result.repository} (its README.md says how to serve it)")
