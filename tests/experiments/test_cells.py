"""Cells: named apart, sharing what they can share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ablation import grids
from ablation.cells import Cell
from ablation.errors import ExperimentError
from qmdd.calibration.recipe import Recipe, load_recipe

FULL = Cell("npr", True, True, "n2uq", 2, 0)


def _all(seeds: int = 3) -> set[Cell]:
    return {cell for figure in grids.BARS for cell in grids.cells_of(figure, seeds)}


def test_different_cells_have_different_names() -> None:
    cells = _all()
    assert len({cell.name for cell in cells}) == len(cells) == 3 * 18


def test_figures_share_cells() -> None:
    """The full method is in Fig. 9 and in Fig. 8b, and so is its step without SLR."""
    shared = set(grids.cells_of("fig9", 1)) & set(grids.cells_of("fig8b", 1))
    assert shared == {FULL, dataclasses.replace(FULL, slr=False)}


def test_starts_are_shared_by_topology_and_seed() -> None:
    """Eighteen cells of a seed start from three full-precision runs, equal in every field."""
    base = load_recipe(Path("experiments/recipe.toml"))
    starts: dict[str, set[Recipe]] = {}
    for cell in _all():
        starts.setdefault(cell.start, set()).add(cell.start_recipe(base))
    assert len(starts) == 9
    assert all(len(recipes) == 1 for recipes in starts.values())


def test_a_seed_comes_before_the_next() -> None:
    assert [cell.seed for cell in grids.cells_of("fig9", 2)] == [0] * 4 + [1] * 4


@pytest.mark.parametrize("cell", sorted(_all(1), key=lambda cell: cell.name))
def test_a_recipe_is_the_cell(cell: Cell) -> None:
    """What is trained is what the name says; length, width and rate are the common ones."""
    base = load_recipe(Path("experiments/recipe.toml"))
    recipe = cell.recipe(base)
    config = recipe.config(recipe.stages[0].bits)
    assert (config.representation, config.cqb, config.slr) == (
        cell.representation,
        cell.cqb,
        cell.slr,
    )
    assert config.bits == cell.bits
    if cell.bits != 32:
        assert config.activation == config.weight == cell.kind
    (stage,) = recipe.stages
    assert dataclasses.replace(stage, bits=2) == base.stages[1]
    assert recipe.width == base.width
    (first,) = cell.start_recipe(base).stages
    assert first == base.stages[0]
    assert cell.start_recipe(base).seed != recipe.seed


def test_a_recipe_of_other_stages_is_refused() -> None:
    base = load_recipe(Path("experiments/recipe.toml"))
    with pytest.raises(ExperimentError, match="two stages"):
        FULL.recipe(dataclasses.replace(base, stages=base.stages[:1]))
    with pytest.raises(ExperimentError, match="first of them with bits = 32"):
        FULL.start_recipe(dataclasses.replace(base, stages=base.stages[::-1]))
