"""Fig. 2, 8b and 9 from their cells: bars in order, all seeds, paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .cells import Cell
from .results import Line, read_cells
from .tables import Table

GROUPS = ("all", "seen", "unseen")
METRICS = ("acc", "ap")
TITLES = {"acc": "Acc", "ap": "AP"}


class Bar(NamedTuple):
    """One configuration over its seeds.

    Attributes:
        label: what the figure calls it.
        cell: makes the cell of a seed.
        against: label of the bar that it is compared with, seed by seed; ``""`` for none.
    """

    label: str
    cell: Callable[[int], Cell]
    against: str = ""


def _bar(
    label: str,
    representation: str,
    *,
    cqb: bool = False,
    slr: bool = False,
    kind: str = "n2uq",
    bits: int = 2,
    against: str = "",
) -> Bar:
    return Bar(label, lambda seed: Cell(representation, cqb, slr, kind, bits, seed), against)


FIG9 = (
    _bar("N2UQ on RGB", "rgb"),
    _bar("NPR", "npr", against="N2UQ on RGB"),
    _bar("NPR + CQB", "npr", cqb=True, against="NPR"),
    _bar("NPR + CQB + SLR", "npr", cqb=True, slr=True, against="NPR + CQB"),
)
_KINDS = (("minmax", "MinMax"), ("lsq", "LSQ"), ("n2uq", "N2UQ"))
FIG8B = tuple(
    bar
    for kind, title in _KINDS
    for bar in (
        _bar(title, "npr", cqb=True, kind=kind),
        _bar(f"{title} + SLR", "npr", cqb=True, slr=True, kind=kind, against=title),
    )
)
_WIDTHS = ((32, ""), (8, "lsq"), (4, "lsq"), (2, "lsq"), (1, "binary"))


def fig2_bars(representation: str) -> tuple[Bar, ...]:
    """Fig. 2's bars on one representation, widest first."""
    name = representation.upper()
    return tuple(
        _bar(
            f"{name}, {bits} bit{'' if bits == 1 else 's'}",
            representation,
            kind=kind,
            bits=bits,
            against="" if bits == 32 else f"{name}, 32 bits",
        )
        for bits, kind in _WIDTHS
    )


FIG2 = (*fig2_bars("rgb"), *fig2_bars("npr"))
#: Bars of a figure in order.
BARS: dict[str, tuple[Bar, ...]] = {"fig9": FIG9, "fig8b": FIG8B, "fig2": FIG2}


def cells_of(figure: str, seeds: int) -> list[Cell]:
    """The cells of ``figure``; a seed's before the next's, so that a part is a whole figure."""
    return [bar.cell(seed) for seed in range(seeds) for bar in BARS[figure]]


class Series(NamedTuple):
    """A bar with what was measured: the results of its seeds, by seed."""

    bar: Bar
    lines: dict[int, Line]

    def values(self, group: str, metric: str) -> list[float]:
        """One number a seed, seeds in order."""
        return [self.lines[seed]["mean"][group][metric] for seed in sorted(self.lines)]


def series(figure: str, results: Path) -> list[Series]:
    """The bars of ``figure`` with all their results; empty ones where no seed is done."""
    cells = read_cells(results)
    seeds = range(1 + max((line["seed"] for line in cells.values()), default=-1))
    return [
        Series(
            bar,
            {seed: cells[bar.cell(seed).name] for seed in seeds if bar.cell(seed).name in cells},
        )
        for bar in BARS[figure]
    ]


def missing(figure: str, results: Path) -> list[tuple[str, list[int]]]:
    """Bars that lack seeds which other cells have: label and seeds."""
    seeds = sorted({line["seed"] for line in read_cells(results).values()})
    lacking = [
        (entry.bar.label, [seed for seed in seeds if seed not in entry.lines])
        for entry in series(figure, results)
    ]
    return [(label, absent) for label, absent in lacking if absent]


def differences(upper: Series, lower: Series, group: str, metric: str) -> list[float]:
    """``upper`` minus ``lower`` for each seed that both have."""
    shared = sorted(upper.lines.keys() & lower.lines.keys())
    return [
        upper.lines[s]["mean"][group][metric] - lower.lines[s]["mean"][group][metric]
        for s in shared
    ]


def mean(values: list[float]) -> float:
    """The mean, summed exactly."""
    return math.fsum(values) / len(values)


def spread(values: list[float], *, sign: bool = False) -> str:
    """``mean (smallest .. largest)`` in percent; a dash where there is nothing."""
    if not values:
        return "-"
    form = "{:+.1f}" if sign else "{:.1f}"
    low, middle, high = (form.format(100 * v) for v in (min(values), mean(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} .. {high})"


def table(figure: str, results: Path) -> Table:
    """A row a bar: Acc and AP over all, seen and unseen generators."""
    rows = []
    for found in series(figure, results):
        numbers = [spread(found.values(g, m)) for g in GROUPS for m in METRICS]
        rows.append((found.bar.label, str(len(found.lines)), *numbers))
    columns = [f"{TITLES[m]}, {g}" for g in GROUPS for m in METRICS]
    return Table(("configuration", "seeds", *columns), rows)


def difference_table(figure: str, results: Path) -> Table:
    """A row a comparison: differences in points, seed by seed, their mean and spread."""
    found = {entry.bar.label: entry for entry in series(figure, results)}
    pairs = [(bar.label, bar.against) for bar in BARS[figure] if bar.against]
    if figure == "fig9":
        pairs.append((FIG9[-1].label, FIG9[0].label))
    rows = []
    for upper, lower in pairs:
        deltas = {
            (g, m): differences(found[upper], found[lower], g, m) for g in GROUPS for m in METRICS
        }
        numbers = [spread(deltas[g, m], sign=True) for g in GROUPS for m in METRICS]
        rows.append((f"{upper} - {lower}", str(len(deltas["all", "acc"])), *numbers))
    columns = [f"{TITLES[m]}, {g}" for g in GROUPS for m in METRICS]
    return Table(("difference in points", "seeds", *columns), rows)


def generator_table(figure: str, results: Path) -> Table:
    """Accuracy by generator, mean over the seeds; the seen generators first."""
    found = [entry for entry in series(figure, results) if entry.lines]
    every = [line["generators"] for entry in found for line in entry.lines.values()]
    names = sorted({(not g["seen"], name) for each in every for name, g in each.items()})
    rows = []
    for entry in found:
        lines = entry.lines.values()
        values = [[line["generators"][name]["acc"] for line in lines] for _, name in names]
        rows.append((entry.bar.label, *(f"{100 * mean(v):.1f}" for v in values)))
    columns = [f"{name}{' (unseen)' if unseen else ''}" for unseen, name in names]
    return Table(("Acc, mean over seeds", *columns), rows)


def long_table(figure: str, results: Path) -> Table:
    """Everything that the figure is drawn from: a row a cell and generator."""
    rows = []
    for entry in series(figure, results):
        for seed, line in sorted(entry.lines.items()):
            for name, m in sorted(line["generators"].items()):
                where = "seen" if m["seen"] else "unseen"
                numbers = [f"{m[key]:.6f}" for key in ("acc", "ap", "real_acc", "fake_acc")]
                rows.append((entry.bar.label, str(seed), name, where, str(m["images"]), *numbers))
    columns = ("configuration", "seed", "generator", "in training", "images")
    return Table((*columns, "acc", "ap", "real_acc", "fake_acc"), rows)
