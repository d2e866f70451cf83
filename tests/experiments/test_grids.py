"""Tables, differences and plots of the trained figures, on results made up for the purpose."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ablation import grid_plots, grids, style
from ablation.errors import ExperimentError
from ablation.figures import FIGURES


def test_spread() -> None:
    assert grids.spread([0.5, 0.6, 0.7]) == "60.0 (50.0 .. 70.0)"
    assert grids.spread([-0.01, 0.03], sign=True) == "+1.0 (-1.0 .. +3.0)"
    assert grids.spread([0.25]) == "25.0"
    assert grids.spread([]) == "-"


def test_differences_are_taken_seed_by_seed(invent: Callable[..., None], tmp_path: Path) -> None:
    """Only seeds that both bars have count: the third seed of the upper one has no partner."""
    lower, upper = grids.FIG9[0], grids.FIG9[3]
    for seed, acc in ((0, 0.5), (1, 0.7)):
        invent(tmp_path, lower.cell(seed), acc, acc)
    for seed, acc in ((0, 0.6), (1, 0.65), (2, 0.99)):
        invent(tmp_path, upper.cell(seed), acc, acc)
    found = {entry.bar.label: entry for entry in grids.series("fig9", tmp_path)}
    deltas = grids.differences(found[upper.label], found[lower.label], "seen", "acc")
    assert deltas == pytest.approx([0.1, -0.05])
    table = grids.difference_table("fig9", tmp_path)
    assert table.rows[-1][:4] == (
        "NPR + CQB + SLR - N2UQ on RGB",
        "2",
        "+2.5 (-5.0 .. +10.0)",
        "+2.5 (-5.0 .. +10.0)",
    )
    assert table.rows[0][1:3] == ("0", "-")  # NPR was not run


def test_table(invented: Path) -> None:
    """A row a bar, in the figure's order; means over generators by group."""
    table = grids.table("fig9", invented)
    assert [row[0] for row in table.rows] == [bar.label for bar in grids.FIG9]
    cells = dict(zip(table.columns, table.rows[2], strict=True))
    base = 100 * (0.6 + 2 / 50)
    # Fig. 8b was written after Fig. 9 and shares this cell: its own place counts.
    base = 100 * (0.6 + [bar.label for bar in grids.FIG8B].index("N2UQ") / 50)
    assert cells["Acc, seen"] == f"{base + 0.5:.1f} ({base:.1f} .. {base + 1:.1f})"
    assert cells["Acc, unseen"] == f"{base - 9.5:.1f} ({base - 10:.1f} .. {base - 9:.1f})"
    assert cells["Acc, all"] == f"{base - 4.5:.1f} ({base - 5:.1f} .. {base - 4:.1f})"


@pytest.mark.parametrize("figure", list(grids.BARS))
def test_plots_and_tables_are_written(figure: str, invented: Path, tmp_path: Path) -> None:
    """An SVG with something in it, the same bytes again, and tables that hold every seed."""
    written = grid_plots.draw(figure, invented, tmp_path / "a")
    again = grid_plots.draw(figure, invented, tmp_path / "b")
    assert [path.name for path in written] == [path.name for path in again]
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    plot = tmp_path / "a" / f"{figure}.svg"
    assert plot.stat().st_size < style.LARGEST
    drawing = ElementTree.fromstring(plot.read_text())  # noqa: S314 - our own file
    paths = drawing.iter("{http://www.w3.org/2000/svg}path")
    bars = len(grids.BARS[figure])
    assert sum(1 for _ in paths) > 4 * bars  # two groups, two metrics, and the letters
    with (tmp_path / "a" / f"{figure}_cells.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == bars * 2 * 2  # seeds, generators
    assert {row["in training"] for row in rows} == {"seen", "unseen"}


def test_a_plot_of_what_is_there(invent: Callable[..., None], tmp_path: Path) -> None:
    """One cell of one seed, and none at all: still a plot."""
    grid_plots.draw("fig9", tmp_path, tmp_path)
    empty = (tmp_path / "fig9.svg").read_bytes()
    invent(tmp_path, grids.FIG9[1].cell(2), 0.8, 0.9)
    grid_plots.draw("fig9", tmp_path, tmp_path)
    assert (tmp_path / "fig9.svg").read_bytes() != empty


def test_a_plot_too_large_to_commit(
    invented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "LARGEST", 1000)
    with pytest.raises(ExperimentError, match="bytes are more than 1,000"):
        grid_plots.draw("fig9", invented, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_every_trained_figure_can_be_run() -> None:
    assert set(grids.BARS) <= set(FIGURES)
    for name in grids.BARS:
        assert FIGURES[name].cells(2) == grids.cells_of(name, 2)
