"""Cells: one configuration, one seed, one training run.

Figures share them (:mod:`.grids` says which cells a figure is made of): the full method at 2 bits
is the last bar of Fig. 9 and a bar of Fig. 8b.
"""

from __future__ import annotations

import dataclasses

from qmdd.calibration.recipe import Recipe, Stage

from .errors import ExperimentError

FULL_PRECISION = 32
#: The quantised stage's seed is the cell's own plus this, so that it sees its images in another
#: order than the stage before it.
SEED_STEP = 1000


@dataclasses.dataclass(frozen=True)
class Cell:
    """One configuration and one seed.

    Attributes:
        representation: ``npr`` or ``rgb``.
        cqb: weighted shortcuts (Eq. 6-9).
        slr: shifted logarithm before the activation quantizers (Eq. 10-11).
        kind: quantizer of activations and weights; ``""`` in full precision.
        bits: width of both.
        seed: of initial weights, order and crops of the images.
    """

    representation: str
    cqb: bool
    slr: bool
    kind: str
    bits: int
    seed: int

    @property
    def name(self) -> str:
        """Names the cell's folder and its line among the results."""
        what = "fp" if self.bits == FULL_PRECISION else f"{self.kind}-{self.bits}bit"
        return f"{self.topology}{'-slr' if self.slr else ''}-{what}-s{self.seed}"

    @property
    def topology(self) -> str:
        """What the full-precision weights that it starts from depend on."""
        return self.representation + ("-cqb" if self.cqb else "")

    @property
    def start(self) -> str:
        """Name of the full-precision run that it starts from; cells share them."""
        return f"start-{self.topology}-s{self.seed}"

    def start_recipe(self, base: Recipe) -> Recipe:
        """The first stage of ``base`` at this topology and seed."""
        return dataclasses.replace(
            base,
            stages=_two(base)[:1],
            representation=self.representation,
            cqb=self.cqb,
            slr=False,  # nothing is quantised yet: one run for cells with it and without
            seed=self.seed,
        )

    def recipe(self, base: Recipe) -> Recipe:
        """The second stage of ``base`` at this cell's width, from :attr:`start`'s weights."""
        return dataclasses.replace(
            base,
            stages=(dataclasses.replace(_two(base)[1], bits=self.bits),),
            start=self.start,
            representation=self.representation,
            cqb=self.cqb,
            slr=self.slr,
            activation=self.kind,
            weight=self.kind,
            seed=self.seed + SEED_STEP,
        )


def _two(base: Recipe) -> tuple[Stage, ...]:
    first = base.stages[0]
    if len(base.stages) != 2 or first.bits != FULL_PRECISION:
        raise ExperimentError(
            "the experiments' recipe has two stages, the first of them with bits = 32"
        )
    return base.stages


def starts(seeds: int) -> list[Cell]:
    """The full-precision runs on RGB and on NPR without CQB that Fig. 3 looks into."""
    return [
        Cell(representation, False, False, "", FULL_PRECISION, seed)
        for seed in range(seeds)
        for representation in ("rgb", "npr")
    ]
