"""The committed document is what its results say, and so are the committed tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ablation import grids, inputs, layer_error, logarithm, paths, style
from ablation.report import document, verdict
from ablation.results import read_cells
from qmdd.calibration.recipe import load_recipe

from .conftest import ROOT

RESULTS, FIGURES = ROOT / "experiments" / "results", ROOT / "experiments" / "figures"


def test_the_committed_document_is_the_generated_one() -> None:
    """If it fails: run ``python experiments/report.py``."""
    assert (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8") == document(RESULTS)


def test_the_committed_tables_are_those_of_the_committed_results() -> None:
    """If it fails: run ``python experiments/all.py --only-plot``."""
    want = {
        "fig4.csv": inputs.table(RESULTS),
        "fig6.csv": paths.table(RESULTS),
        "fig7.csv": logarithm.table(RESULTS),
    }
    for figure in grids.BARS:
        if any(entry.lines for entry in grids.series(figure, RESULTS)):
            want[f"{figure}.csv"] = grids.table(figure, RESULTS)
            want[f"{figure}_differences.csv"] = grids.difference_table(figure, RESULTS)
            want[f"{figure}_cells.csv"] = grids.long_table(figure, RESULTS)
    if (RESULTS / "fig3.json").exists():
        for bits in layer_error.WIDTHS:
            want[f"fig3_{bits}bit.csv"] = layer_error.table(RESULTS, bits)
    assert {path.name for path in FIGURES.glob("*.csv")} == set(want)
    for name, table in want.items():
        assert (FIGURES / name).read_text(encoding="utf-8") == table.csv(), name


def test_the_committed_cells_are_of_the_committed_recipe() -> None:
    """So that a command goes on from them. They also count the seeds: at least three of Fig. 9."""
    base = load_recipe(ROOT / "experiments" / "recipe.toml")
    found = read_cells(RESULTS)
    known = {
        cell.name: cell
        for figure in grids.BARS
        for cell in grids.cells_of(figure, 1 + max(line["seed"] for line in found.values()))
    }
    for name, line in found.items():
        assert line["recipe"] == json.loads(json.dumps(known[name].recipe(base).to_dict())), name
        assert line["start"] == json.loads(json.dumps(known[name].start_recipe(base).to_dict()))
    assert all(len(entry.lines) >= 3 for entry in grids.series("fig9", RESULTS))


def test_committed_plots_are_there_and_small() -> None:
    """Every plot that the document shows, and no larger than a repository should carry."""
    text = document(RESULTS)
    shown = {part.split(")")[0] for part in text.split("../experiments/figures/")[1:]}
    plots = {path.name for path in FIGURES.iterdir() if path.suffix != ".csv"}
    assert shown == plots
    for name in plots:
        assert 0 < (FIGURES / name).stat().st_size <= style.LARGEST


@pytest.mark.parametrize(
    ("deltas", "says"),
    [
        ([], "not measured"),
        ([0.1], "higher"),
        ([-0.1], "lower"),
        ([0.0, 0.0], "the same"),
        ([0.1, 0.2, 0.01], "higher in every seed"),
        ([-0.1, -0.2], "lower in every seed"),
        ([0.3, -0.1, 0.1], "higher on average, in 2 of 3 seeds"),
        ([-0.3, 0.1, 0.0], "lower on average, in 1 of 3 seeds"),
        ([0.3, 0.0], "higher on average, in 1 of 2 seeds"),
    ],
)
def test_verdict(deltas: list[float], says: str) -> None:
    assert verdict(deltas) == says


def test_a_result_against_the_paper_is_written_as_it_fell(
    invent: Callable[..., None], tmp_path: Path
) -> None:
    """The full method below the baseline: the first line says so, with the numbers."""
    for seed in range(3):
        invent(tmp_path, grids.FIG9[0].cell(seed), 0.8 + seed / 100, 0.9)
        invent(tmp_path, grids.FIG9[3].cell(seed), 0.7, 0.9)
    text = document(tmp_path)
    assert "3 seeds: Acc **-11.0 (-12.0 .. -10.0)** points (lower in every seed)" in text
    assert "AP +0.0 (+0.0 .. +0.0) (the same)" in text
    assert "| all three, Acc | +17.0 (their sum) | -11.0 (-12.0 .. -10.0) | lower in every" in text
    plain = " ".join(text.split())
    assert "Done: 6 cells of 3 seeds, 0.1 hours of one core" in plain  # 6 x 60 s, 6 x 30 s
    assert text.count("Not run yet.") == 5  # Fig. 8b has a cell of this one


def test_missing_cells_are_named(invent: Callable[..., None], tmp_path: Path) -> None:
    """A figure that lacks seeds says which, and what runs them; a whole one does not."""
    for bar in grids.FIG9:
        for seed in (0, 1):
            invent(tmp_path, bar.cell(seed), 0.8, 0.9)
    invent(tmp_path, grids.FIG8B[0].cell(1), 0.8, 0.9)
    whole, partial = document(tmp_path).split("## Fig. 8b")
    assert "Not all cells are in" not in whole
    says = partial.split("**Not all cells are in**; missing: ")[1].split(". `python")[0]
    assert (
        says == "MinMax (seed 0); MinMax + SLR (seed 0, 1); LSQ (seed 0, 1); LSQ + SLR (seed 0, 1)"
    )


def test_nothing_run_yet(tmp_path: Path) -> None:
    text = document(tmp_path)
    assert text.count("Not run yet.") == 7
    assert "In one line" not in text
