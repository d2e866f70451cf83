"""A tiny data set with ``train/`` and ``test/``, a recipe of seconds, results that are made up."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from ablation import grids  # noqa: E402
from ablation.results import write_cell  # noqa: E402
from ablation.runner import Workshop  # noqa: E402
from qmdd.calibration.recipe import load_recipe  # noqa: E402

#: Twice two epochs of two steps each.
RECIPE = """
width = 0.125
statistics = 6

[[stage]]
bits = 32
epochs = 2
lr = 1e-3
batch = 3
crop = 32
warmup = 1

[[stage]]
bits = 2
epochs = 2
lr = 1e-3
batch = 3
crop = 32
warmup = 1
"""


@pytest.fixture(scope="session")
def data(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` knows the generator alpha; ``test/`` has alpha and beta, which is unseen."""
    root = tmp_path_factory.mktemp("data")
    shutil.copytree(image_folder / "alpha", root / "train" / "alpha")
    shutil.copytree(image_folder, root / "test")
    return root


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def workshop(data: Path, recipe_file: Path, tmp_path: Path) -> Workshop:
    return Workshop(load_recipe(recipe_file), data, tmp_path / "runs", tmp_path / "results")


def _metrics(acc: float, ap: float, *, seen: bool) -> dict[str, Any]:
    return {"images": 8, "acc": acc, "ap": ap, "real_acc": acc, "fake_acc": acc, "seen": seen}


@pytest.fixture
def invent(recipe_file: Path) -> Callable[..., None]:
    """``invent(folder, cell, acc, ap)``: write a result that looks like a cell's.

    The seen generator has ``acc`` and ``ap`` themselves, the unseen one a tenth less.
    """
    base = load_recipe(recipe_file)

    def write(folder: Path, cell: Any, acc: float, ap: float) -> None:
        seen, unseen = _metrics(acc, ap, seen=True), _metrics(acc - 0.1, ap - 0.1, seen=False)
        means = {
            name: {key: sum(m[key] for m in group) / len(group) for key in ("acc", "ap")}
            for name, group in (("seen", [seen]), ("unseen", [unseen]), ("all", [seen, unseen]))
        }
        line = {
            "cell": cell.name,
            "seed": cell.seed,
            "recipe": cell.recipe(base).to_dict(),
            "start": cell.start_recipe(base).to_dict(),
            "mean": means,
            "generators": {"alpha": seen, "beta": unseen},
            "seconds": 60.0,
            "start_seconds": 30.0,
        }
        write_cell(folder, json.loads(json.dumps(line)))

    return write


@pytest.fixture
def invented(invent: Callable[..., None], tmp_path: Path) -> Path:
    """Results of two seeds for all grids: bar ``i`` has Acc ``0.6 + i/50``, seed 1 0.01 more."""
    folder = tmp_path / "invented"
    for bars in grids.BARS.values():
        for place, bar in enumerate(bars):
            for seed in (0, 1):
                acc = 0.6 + place / 50 + seed / 100
                invent(folder, bar.cell(seed), acc, acc + 0.1)
    return folder
