"""How long cells will take: a few real steps of each kind, timed here and now (processor time)."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch.nn import functional as F

from qmdd.calibration.recipe import Recipe
from qmdd.models import detector_from_config

from .cells import Cell

#: Steps that are timed; one more comes first and is not.
STEPS = 3


class Estimate(NamedTuple):
    """Seconds of a run, and its steps."""

    seconds: float
    steps: int


def step_seconds(recipe: Recipe) -> float:
    """Median processor seconds of a training step of ``recipe``'s only stage, on random pixels.

    Decoding and cropping are not in it (two milliseconds an image, once, and a step's crops).
    """
    (stage,) = recipe.stages
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = detector_from_config(recipe.config(stage.bits)).train()
        images = torch.randint(0, 256, (stage.batch, 3, stage.crop, stage.crop))
    labels = torch.arange(stage.batch).remainder(2).float()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-4, fused=True)
    taken = []
    for _ in range(STEPS + 1):
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            logits = detector(images)
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        taken.append(time.process_time() - started)
    return sorted(taken[1:])[STEPS // 2]


class Pace:
    """Estimates; every kind of step is timed once."""

    def __init__(self, base: Recipe, images: int) -> None:
        self._base, self._images = base, images
        self._known: dict[str, float] = {}

    def start(self, cell: Cell) -> Estimate:
        """Of the full-precision run that ``cell`` starts from."""
        return self._estimate(cell.start_recipe(self._base), cell.start.rpartition("-s")[0])

    def cell(self, cell: Cell) -> Estimate:
        """Of ``cell``'s own training."""
        return self._estimate(cell.recipe(self._base), cell.name.rpartition("-s")[0])

    def _estimate(self, recipe: Recipe, kind: str) -> Estimate:
        if kind not in self._known:
            self._known[kind] = step_seconds(recipe)
        (stage,) = recipe.stages
        steps = stage.epochs * max(1, self._images // stage.batch)
        return Estimate(self._known[kind] * steps, steps)
