"""Cells are run once, go on after a kill, share starts, and never count for another recipe."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ablation import runner
from ablation.cells import Cell
from ablation.command import command
from ablation.errors import ExperimentError
from ablation.results import CELLS, read_cells, write_cell
from ablation.runner import LATENT, Workshop, run_cell
from qmdd.calibration.evaluate import scores_of
from qmdd.calibration.recipe import load_recipe
from qmdd.calibration.train import STATE, Trainer, latent_from
from qmdd.runtime.folder import scan
from qmdd.runtime.metrics import metrics_of

from .conftest import ROOT

CELL = Cell("npr", True, True, "n2uq", 2, 0)
PLAIN = dataclasses.replace(CELL, slr=False)


class Killed(BaseException):
    """What a callback raises in place of a signal."""


def _comparable(line: dict[str, Any]) -> dict[str, Any]:
    """A result without what depends on the clock."""
    return {k: v for k, v in line.items() if k not in ("seconds", "start_seconds", "measured")}


def test_a_result_is_what_the_detector_scores(workshop: Workshop) -> None:
    """Metrics by generator and their means, against scores taken apart from the runner."""
    line = run_cell(workshop, CELL)
    samples = scan(workshop.data / "test")
    scores = scores_of(latent_from(workshop.runs / CELL.name / LATENT), samples)
    want = {}
    for name in ("alpha", "beta"):
        rows = [i for i, sample in enumerate(samples) if sample.generator == name]
        want[name] = metrics_of([samples[i].label for i in rows], scores[rows])
    for name, found in want.items():
        for key, value in found._asdict().items():
            assert line["generators"][name][key] == pytest.approx(value, abs=1e-6)
    assert {name: g["seen"] for name, g in line["generators"].items()} == {
        "alpha": True,
        "beta": False,
    }
    for key in ("acc", "ap"):
        both = [getattr(want[name], key) for name in ("alpha", "beta")]
        assert line["mean"]["seen"][key] == pytest.approx(both[0], abs=1e-6)
        assert line["mean"]["unseen"][key] == pytest.approx(both[1], abs=1e-6)
        assert line["mean"]["all"][key] == pytest.approx(np.mean(both), abs=1e-6)
    assert len(line["loss"]) == len(line["start_loss"]) == 2
    assert line["seconds"] > 0
    assert read_cells(workshop.results) == {CELL.name: line}
    assert not (workshop.runs / CELL.name / STATE).exists()


def test_what_is_done_is_not_done_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither trained nor scored: its line is read. Cells of one topology share their start."""
    trained: list[str] = []

    def counted(self: Trainer) -> Any:
        trained.append(self.out.name)
        return run(self)

    run = Trainer.run
    monkeypatch.setattr(runner.Trainer, "run", counted)
    first = run_cell(workshop, CELL)
    assert trained == [CELL.start, CELL.name]
    monkeypatch.setattr(runner, "scores_of", lambda *_a, **_k: pytest.fail("scored again"))
    assert run_cell(workshop, CELL) == first
    monkeypatch.undo()
    monkeypatch.setattr(runner.Trainer, "run", counted)
    run_cell(workshop, PLAIN)
    assert trained == [CELL.start, CELL.name, PLAIN.name]


@pytest.fixture(scope="module")
def unbroken(
    data: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The cell's result when nothing stops it."""
    place = tmp_path_factory.mktemp("unbroken")
    return run_cell(Workshop(load_recipe(recipe_file), data, place / "runs", place), CELL)


@pytest.mark.parametrize(
    "point",
    [
        (CELL.start, 3),  # within the second epoch of the shared start
        (CELL.name, 2),  # at the end of an epoch, its state not yet saved
        ("measuring", 12),  # trained, its result not yet written
    ],
)
def test_a_killed_cell_ends_as_an_unbroken_one(
    point: tuple[str, int], workshop: Workshop, unbroken: dict[str, Any]
) -> None:
    """The same metrics and the same loss curve, wherever it was killed."""

    def kill(what: str, done: int, _total: int) -> None:
        if what.startswith(point[0]) and done == point[1]:
            raise Killed

    with pytest.raises(Killed):
        run_cell(workshop, CELL, kill)
    assert read_cells(workshop.results) == {}
    assert _comparable(run_cell(workshop, CELL)) == _comparable(unbroken)


def test_a_process_that_is_killed(
    data: Path, recipe_file: Path, tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    """SIGKILL in the middle of the queue; the same command ends it, with an unbroken run's line."""
    places = {name: tmp_path / name for name in ("runs", "results", "plots")}
    options = [
        *("--data", str(data), "--recipe", str(recipe_file), "--seeds", "1"),
        *(f"--{name}={place}" for name, place in places.items()),
    ]
    script = [sys.executable, str(ROOT / "experiments" / "fig9_ablation.py"), *options]
    results = places["results"] / CELLS
    begun = subprocess.Popen(script, stdout=subprocess.DEVNULL, cwd=ROOT)
    patience = time.monotonic() + 120
    while not results.exists() and begun.poll() is None and time.monotonic() < patience:
        time.sleep(0.01)
    begun.send_signal(signal.SIGKILL)
    assert begun.wait() == -signal.SIGKILL
    before = results.read_text().splitlines()
    assert 0 < len(before) < 4
    threads = torch.get_num_threads()
    ended = CliRunner().invoke(command(["fig9"], "Summary."), options)
    torch.set_num_threads(threads)  # the command sets it
    assert ended.exit_code == 0, ended.stderr
    cells = read_cells(places["results"])
    assert len(cells) == 4
    assert set(before) <= set(results.read_text().splitlines())
    assert (places["plots"] / "fig9.svg").stat().st_size > 0
    have = {**cells[CELL.name], "threads": unbroken["threads"]}
    if unbroken["threads"] == 1:  # sums come in another order with more
        assert _comparable(have) == _comparable(unbroken)


def test_another_recipe_or_other_data_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    run_cell(workshop, CELL)
    longer = dataclasses.replace(workshop.recipe, statistics=3)
    with pytest.raises(ExperimentError, match="has another recipe; keep it and choose"):
        run_cell(dataclasses.replace(workshop, recipe=longer), CELL)
    elsewhere = dataclasses.replace(workshop, recipe=longer, results=tmp_path / "other")
    with pytest.raises(ExperimentError, match="trained by another recipe or on other data"):
        run_cell(elsewhere, CELL)


def test_a_line_that_is_no_result(workshop: Workshop) -> None:
    """Its number and what to do; nothing is overwritten."""
    workshop.results.mkdir()
    path = workshop.results / CELLS
    for text in ("{}\n", "[1]\n", '{"cell": "a"}\nnonsense\n'):
        path.write_text(text)
        with pytest.raises(ExperimentError, match=rf"line {text.count(chr(10))}: not a cell's"):
            run_cell(workshop, CELL)
        assert path.read_text() == text


def test_a_result_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cell(tmp_path, {"cell": "b", "n": 1})
    before = (tmp_path / CELLS).read_bytes()

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_cell(tmp_path, {"cell": "a", "n": 2})
    assert (tmp_path / CELLS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CELLS]
    monkeypatch.undo()
    write_cell(tmp_path, {"cell": "a", "n": 2})
    write_cell(tmp_path, {"cell": "b", "n": 3})
    lines = [json.loads(text) for text in (tmp_path / CELLS).read_text().splitlines()]
    assert lines == [{"cell": "a", "n": 2}, {"cell": "b", "n": 3}]


def test_two_processes_do_not_share_runs(workshop: Workshop) -> None:
    """The folder is held as long as the block runs; then it is free."""
    refused = pytest.raises(ExperimentError, match="another process runs cells here")
    with workshop.locked(), refused, workshop.locked():
        pass
    with workshop.locked():
        pass
