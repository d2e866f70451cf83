"""``qmdd``: the group of commands.

A command's module is imported when the command is invoked, and a library when it is needed, so
that ``qmdd --help`` stays fast and works with none of the extras installed.
"""

from __future__ import annotations

import difflib
import importlib
import keyword
import sys
from typing import Any

import click

from .compiler_cache import private_compiler_cache
from .errors import EXTRAS, State, explain, finish_stdout, leave_signals, take_signals
from .options import debug_option

#: One line of help for each command, in the order in which they are listed.
SUMMARIES = {
    "export": "Turn a checkpoint into a bundle, proven exact.",
    "targets": "List what a model can be exported for.",
    "verify": "Compare a bundle with its source, code by code.",
    "build": "Build a bundle's TensorRT engine, and audit it.",
    "inspect": "Show a bundle's layers: planned against built.",
    "report": "Write a bundle's report: one HTML file that shows it all.",
    "detect": "Score images with a bundle: real or fake.",
    "scan": "Score a large collection to Parquet, restartable, here or on Ray.",
    "watch": "Score what comes into a folder, for as long as it runs.",
    "demo": "Serve a page that scores the images dropped on it.",
    "bench": "Measure a bundle's speed and memory on this machine.",
    "compare": "Put two bundles or checkpoints side by side.",
    "deploy": "Bring a bundle to devices over ssh, and verify it there.",
    "rollback": "Return a device to what it ran before.",
    "eval": "Measure accuracy and average precision on an image folder.",
    "train": "Train a low-bit detector on an image folder.",
    "calibrate": "Quantise a full-precision checkpoint without training.",
    "sensitivity": "Measure which layer loses how much at which width.",
    "freeze": "Turn a trained checkpoint into integer codes.",
    "import": "Read a published NPR or N2UQ checkpoint.",
    "doctor": "Say what is wrong with this machine, and what fits it.",
    "estimate": "Estimate a bundle's least time on a device, from its data sheet.",
    "stats": "Count parameters, operations and bytes of a network.",
    "zoo": "List the built-in checkpoints, or print a model card.",
}


class CommandLine(click.Group):
    """A group that imports its commands late and explains every failure in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUMMARIES:
            return None
        state = ctx.find_root().obj
        if isinstance(state, State):
            state.extra = EXTRAS[cmd_name]
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        found = importlib.import_module(f".{module}", __package__).command
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], SUMMARIES, n=1) if args else []
        if near and args[0] not in SUMMARIES:
            ctx.fail(f"No such command {args[0]!r}; did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, say what went wrong if anything did, and exit; the codes are in :mod:`.errors`."""
        state = State()
        kwargs.update(standalone_mode=False, obj=state)
        code: object
        try:
            code = super().main(*args, **kwargs)
            finish_stdout()
        except BaseException as error:  # noqa: BLE001 - the one place where all errors end
            code = explain(error, state)
        sys.exit(code if isinstance(code, int) else 0)


def _print_version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib import metadata

    try:
        version = metadata.version("qmdd")
    except metadata.PackageNotFoundError:  # run from a source tree
        version = "(not installed)"
    click.echo(f"qmdd {version}")
    ctx.exit()


@click.group(
    "qmdd",
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
@debug_option
def cli() -> None:
    """Take a low-bit deepfake detector from a PyTorch checkpoint to a verified bundle.

    Exit codes: 0 success; 1 failure, or a result that misses its bar; 2 wrong usage; 130
    interrupted.
    """


def main() -> None:
    """Entry point: what ``python -m`` runs, and :mod:`.start`."""
    # Both unwind alike (SIGTERM: a container that is stopped), so that nothing half-written stays.
    take_signals()
    try:
        with private_compiler_cache():
            cli.main(prog_name="qmdd")
    finally:
        leave_signals()


if __name__ == "__main__":
    main()
