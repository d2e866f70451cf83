"""The scripts as a user runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from ablation.command import command
from ablation.figures import FIGURES

from .conftest import ROOT

Run = Callable[..., Result]
SCRIPTS = sorted(path.name for path in (ROOT / "experiments").glob("*.py"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """``run(["fig9"], "--seeds", 1)``: what a script does, in this process, without QMDD_DATA."""
    monkeypatch.delenv("QMDD_DATA", raising=False)
    threads = torch.get_num_threads()
    yield lambda figures, *options: CliRunner().invoke(
        command(figures, "Summary."), [str(option) for option in options]
    )
    torch.set_num_threads(threads)  # the commands set it


def test_every_figure_has_its_script() -> None:
    named = {name.split("_")[0] for name in SCRIPTS if name.startswith("fig")}
    assert named == set(FIGURES)


def test_a_dry_run_trains_nothing(run: Run, data: Path, recipe_file: Path, tmp_path: Path) -> None:
    """Every cell, its state and a time; no folder is made."""
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "plots")]
    done = run(
        ["fig9", "fig3"],
        "--data",
        data,
        "--recipe",
        recipe_file,
        "--seeds",
        2,
        "--dry-run",
        *places,
    )
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 4 + 2 * 2 + 1  # cells, Fig. 3's starts, what is left
    assert sum("min" in line for line in lines[:-1]) == 2 * 4  # the starts came with cells
    assert lines[-1].startswith("left: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), 1, "name the data set's folder with --data, or in QMDD_DATA"),
        (("--data", "nowhere"), 1, "no folder train in it"),
        (("--only-plot", "--dry-run"), 2, "exclude each other"),
        (("--seeds", "0"), 2, "--seeds"),
        (("--data", ".", "--recipe", "none.toml"), 1, "no folder train"),
    ],
)
def test_what_is_refused(run: Run, options: tuple[str, ...], code: int, says: str) -> None:
    """One line, no traceback."""
    done = run(["fig9"], *options)
    assert done.exit_code == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_only_plot_needs_no_data(run: Run, invented: Path, tmp_path: Path) -> None:
    done = run(["fig8b"], "--only-plot", "--results", invented, "--plots", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert str(tmp_path / "fig8b.svg") in done.stdout.splitlines()
    assert (tmp_path / "fig8b_cells.csv").exists()


def test_only_plot_before_anything_was_measured(run: Run, tmp_path: Path) -> None:
    done = run(["fig6"], "--only-plot", "--results", tmp_path, "--plots", tmp_path)
    assert done.exit_code == 1
    assert "fig6.json: not measured yet" in done.stderr


def test_figure_3_from_data_to_plot(
    run: Run, data: Path, recipe_file: Path, tmp_path: Path
) -> None:
    """Trains its two networks, measures, draws; a second run only draws."""
    options = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "plots")]
    options += ["--data", str(data), "--recipe", str(recipe_file), "--seeds", "1"]
    first = run(["fig3"], *options)
    assert first.exit_code == 0, first.stderr
    assert sorted(p.name for p in (tmp_path / "runs").glob("start-*")) == [
        "start-npr-s0",
        "start-rgb-s0",
    ]
    written = {p.name: p.read_bytes() for p in (tmp_path / "results").iterdir()}
    assert set(written) == {"fig3.json"}
    again = run(["fig3"], *options)
    assert again.exit_code == 0, again.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "results").iterdir()} == written
