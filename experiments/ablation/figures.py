"""Every figure by name: what it trains, what it measures, how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import cells, grid_plots, grids, inputs, layer_error, logarithm, paths
from .cells import Cell
from .runner import Report

if TYPE_CHECKING:
    from .command import Options


def _none(_seeds: int) -> list[Cell]:
    return []


def _nothing(_options: Options, _report: Report) -> None:
    return None


class Figure(NamedTuple):
    """One figure of the paper.

    Attributes:
        draw: results' folder and plots' folder to the files written.
        cells: what is trained and scored for it, for a number of seeds.
        starts: cells of which only the full-precision start is trained for it.
        measure: looks into networks and writes ``results/<figure>.json``.
    """

    draw: Callable[[Path, Path], list[Path]]
    cells: Callable[[int], list[Cell]] = _none
    starts: Callable[[int], list[Cell]] = _none
    measure: Callable[[Options, Report], None] = _nothing


def _trained(name: str) -> Figure:
    return Figure(partial(grid_plots.draw, name), cells=partial(grids.cells_of, name))


def _looked_at(module: Any) -> Figure:
    return Figure(module.draw, measure=lambda options, _report: module.run(options.results))


#: In the order in which ``all.py`` runs them.
FIGURES = {
    "fig9": _trained("fig9"),
    "fig8b": _trained("fig8b"),
    "fig2": _trained("fig2"),
    "fig3": Figure(layer_error.draw, starts=cells.starts, measure=layer_error.run),
    "fig4": _looked_at(inputs),
    "fig6": _looked_at(paths),
    "fig7": _looked_at(logarithm),
}
