"""The command line of every script here, and of all of them in turn.

Errors are one line and exit codes those of ``qmdd``: 0 success, 1 failure, 2 wrong usage, 130
interrupted.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from qmdd.cli.errors import State, Terminated, explain, finish_stdout
from qmdd.cli.options import FILE, debug_option, use_threads
from qmdd.cli.output import print_line, progress

HERE = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked for on the command line; fields are the options."""

    data: Path | None
    seeds: int
    only_plot: bool
    dry_run: bool
    recipe: Path
    runs: Path
    results: Path
    plots: Path
    threads: int


class _Command(click.Command):
    """Explains every failure in one line, as ``qmdd`` does."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        state = State(extra="train,plots")
        kwargs.update(standalone_mode=False, obj=state)
        code: object
        try:
            code = super().main(*args, **kwargs)
            finish_stdout()
        except BaseException as error:  # noqa: BLE001 - the one place where all errors end
            code = explain(error, state)
        sys.exit(code if isinstance(code, int) else 0)


def command(figures: Sequence[str], summary: str) -> click.Command:
    """The command that runs ``figures`` in turn, then draws each."""

    @click.command(cls=_Command, help=summary)
    @click.option(
        "--data",
        type=FILE,
        envvar="QMDD_DATA",
        metavar="DIR",
        help="Image folder with train/ and test/ in it; default: the variable QMDD_DATA.",
    )
    @click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N")
    @click.option("--only-plot", is_flag=True, help="Draw from the results that are there.")
    @click.option("--dry-run", is_flag=True, help="List what would be run, and how long it takes.")
    @click.option(
        "--recipe",
        type=FILE,
        default=HERE / "recipe.toml",
        metavar="FILE",
        help="Two stages that every cell is trained by; default: experiments/recipe.toml.",
    )
    @click.option(
        "--runs",
        type=FILE,
        default=Path("runs/experiments"),
        show_default=True,
        metavar="DIR",
        help="Folder of the training runs.",
    )
    @click.option(
        "--results",
        type=FILE,
        default=HERE / "results",
        metavar="DIR",
        help="Folder of the results; default: experiments/results.",
    )
    @click.option(
        "--plots",
        type=FILE,
        default=HERE / "figures",
        metavar="DIR",
        help="Folder of plots and tables; default: experiments/figures.",
    )
    @click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Threads to compute with; results belong to their number.",
    )
    @debug_option
    def run(**given: Any) -> None:
        options = Options(**given)
        if options.dry_run and options.only_plot:
            raise click.UsageError("--dry-run and --only-plot exclude each other")
        use_threads(options.threads)
        _run(figures, options)

    return run


def _run(figures: Sequence[str], options: Options) -> None:
    from . import queue
    from .figures import FIGURES

    if not options.only_plot:
        with progress() as report:
            tell = queue.Tell(print_line, report)
            if options.dry_run:
                queue.list_cells(figures, options, tell)
                return
            queue.run(figures, options, tell)
    for name in figures:
        for path in FIGURES[name].draw(options.results, options.plots):
            print_line(str(path))


def main(figures: Sequence[str], summary: str) -> None:
    """Entry point of a script."""
    signal.signal(signal.SIGTERM, _terminate)
    command(figures, summary).main()


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated
