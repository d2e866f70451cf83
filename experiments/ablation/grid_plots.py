"""Bars of Fig. 2, 8b and 9: the mean over the seeds, each seed as a dot, smallest to largest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import grids, style
from .grids import METRICS, TITLES, Series

#: Chance, in percent.
CHANCE = 50.0
_COLOURS = {"seen": style.BLUE, "unseen": style.ORANGE}
_HATCH = {"seen": "", "unseen": "//"}


def draw(figure: str, results: Path, folder: Path) -> list[Path]:
    """Plot and tables of ``figure`` into ``folder``; the files."""
    found = grids.series(figure, results)
    plot = folder / f"{figure}.svg"
    lowest = _lowest(found)
    halves = (found,)
    if figure == "fig2":
        halves = (found[: len(found) // 2], found[len(found) // 2 :])  # type: ignore[assignment]
    with style.canvas(plot, 7.2, 2.5 * len(halves) + 0.5, len(halves), 2) as (_, axes):
        for row, half in zip(axes, halves, strict=True):
            for axis, metric in zip(row, METRICS, strict=True):
                _bars(axis, half, metric)
                axis.set_ylim(lowest, 100)
        _legend(axes[0][0])
    written = [plot]
    for name, make in (
        ("", grids.table),
        ("_differences", grids.difference_table),
        ("_cells", grids.long_table),
    ):
        path = folder / f"{figure}{name}.csv"
        make(figure, results).save(path)
        written.append(path)
    return written


def _legend(axis: Any) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(color=_COLOURS[group], hatch=_HATCH[group], ec="white", lw=0, label=group)
        for group in _COLOURS
    ]
    axis.legend(
        handles=handles,
        title="generators in training",
        title_fontsize=8,
        alignment="left",
        loc="lower left",
        fontsize=8,
        ncols=2,
        bbox_to_anchor=(0, 1.02),
    )


def _bars(axis: Any, found: list[Series], metric: str) -> None:
    """Two bars a configuration, seen and unseen generators."""
    for offset, group in ((-0.2, "seen"), (0.2, "unseen")):
        for position, entry in enumerate(found):
            values = [100 * v for v in entry.values(group, metric)]
            if not values:
                continue
            middle, where = grids.mean(values), position + offset
            axis.bar(
                where,
                middle,
                0.38,
                color=_COLOURS[group],
                hatch=_HATCH[group],
                edgecolor="white",
                linewidth=0,
            )
            axis.vlines(where, min(values), max(values), color="black", linewidth=1)
            spots = [where + 0.05 * (i - (len(values) - 1) / 2) for i in range(len(values))]
            axis.plot(spots, values, ".", color="black", markersize=4)
    axis.axhline(CHANCE, color=style.GREY, linewidth=0.8, linestyle=":")
    labels = [_wrapped(entry.bar.label) for entry in found]
    axis.set_xticks(range(len(found)), labels, fontsize=7)
    axis.set_ylabel(f"{TITLES[metric]} (%)")


def _lowest(found: list[Series]) -> float:
    """Where all panels' axes begin: just below chance, or below the lowest seed."""
    every = [v for e in found for g in _COLOURS for m in METRICS for v in e.values(g, m)]
    return min([CHANCE - 5, *(100 * v - 2 for v in every)])


def _wrapped(label: str) -> str:
    return label.replace(" + ", "\n+ ").replace(", ", "\n").replace(" on ", "\non ")
