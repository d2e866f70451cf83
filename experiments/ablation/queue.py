"""Cells in order: run what is not done, say how each ended; or only list them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qmdd.calibration.recipe import load_recipe
from qmdd.runtime.folder import scan

from .cells import Cell
from .errors import ExperimentError
from .figures import FIGURES
from .pace import Pace
from .results import Line
from .runner import LATENT, Report, Workshop, done, run_cell, start_of

if TYPE_CHECKING:
    from .command import Options


class Tell(NamedTuple):
    """Where lines for people go, and progress."""

    line: Callable[[str], None]
    progress: Report


def workshop(options: Options) -> Workshop:
    """The folders that the options name.

    Raises:
        ExperimentError: no data folder was named, or it lacks a split.
    """
    if options.data is None:
        raise ExperimentError("name the data set's folder with --data, or in QMDD_DATA")
    for split in ("train", "test"):
        if not (options.data / split).is_dir():
            raise ExperimentError(
                f"{options.data}: no folder {split} in it; --data takes a folder with train/ and "
                "test/, each with <generator>/0_real and 1_fake"
            )
    return Workshop(load_recipe(options.recipe), options.data, options.runs, options.results)


def _planned(figures: Sequence[str], seeds: int) -> Iterator[tuple[str, Cell, bool]]:
    """``(figure, cell, only its start)``, each run once, in the order of the figures."""
    known = set()
    for name in figures:
        figure = FIGURES[name]
        plan = [(cell, False) for cell in figure.cells(seeds)]
        plan += [(cell, True) for cell in figure.starts(seeds)]
        for cell, only_start in plan:
            key = cell.start if only_start else cell.name
            if key not in known:
                known.add(key)
                yield name, cell, only_start


def run(figures: Sequence[str], options: Options, tell: Tell) -> None:
    """Train what is missing, then measure what figures look into."""
    plan = list(_planned(figures, options.seeds))
    if plan:
        shop = workshop(options)
        with shop.locked():
            for number, (_, cell, only_start) in enumerate(plan, 1):
                place = f"[{number}/{len(plan)}]"
                if only_start:
                    start_of(shop, cell, tell.progress)
                    tell.line(f"{place} {cell.start}: trained")
                else:
                    tell.line(f"{place} {_ended(run_cell(shop, cell, tell.progress))}")
    for name in figures:
        FIGURES[name].measure(options, tell.progress)


def _ended(line: Line) -> str:
    seen, unseen = line["mean"].get("seen"), line["mean"].get("unseen")
    parts = [
        f"{title} Acc {100 * group['acc']:.1f} AP {100 * group['ap']:.1f}"
        for title, group in (("seen", seen), ("unseen", unseen))
        if group
    ]
    return f"{line['cell']}: {', '.join(parts)} ({line['seconds']:.0f} s of processor time)"


def list_cells(figures: Sequence[str], options: Options, tell: Tell) -> None:
    """Every run with its state, and the processor time that is left."""
    plan = list(_planned(figures, options.seeds))
    if not plan:
        tell.line("nothing to train: this figure looks into networks that are there")
        return
    shop = workshop(options)
    pace = Pace(shop.recipe, len(scan(shop.data / "train")))
    left, timed = 0.0, set()
    for figure, cell, only_start in plan:
        seconds = 0.0
        finished = not only_start and done(shop, cell) is not None
        if not finished and not _there(shop.runs / cell.start) and cell.start not in timed:
            timed.add(cell.start)
            seconds += pace.start(cell).seconds
        if not (finished or only_start):
            seconds += pace.cell(cell).seconds
        left += seconds
        state = "done" if not seconds else f"{seconds / 60:.1f} min"
        tell.line(f"{figure:6} {cell.start if only_start else cell.name:28} {state}")
    tell.line(f"left: {left / 60:.0f} min with {options.threads} thread(s), in processor time")


def _there(folder: Path) -> bool:
    return (folder / LATENT).exists()
