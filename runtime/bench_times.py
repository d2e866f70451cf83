"""Times of runs as medians and percentiles, and the ratio of two models that took turns."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import numpy as np

from .bench_worker import Blocks


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as long one model takes as another, turn by turn.

    Attributes:
        median: over the turns.
        low, high: the 10th and 90th percentile over the turns.
    """

    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Times:
    """One model, one number of threads, one batch; milliseconds a run.

    Attributes:
        runs, turns: how many were counted.
        median_ms, p90_ms, p99_ms, least_ms: of the clock.
        cpu_ms: median of the processor's time, over all threads: where others use the machine, too,
            it is steadier than the clock's.
        images_per_second: at the median.
    """

    runs: int
    turns: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    least_ms: float
    cpu_ms: float
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)


def times_of(blocks: Blocks, batch: int) -> Times:
    """What the runs of one model come to."""
    wall = 1e3 * np.concatenate([np.asarray(block) for block in blocks.wall])
    cpu = 1e3 * np.concatenate([np.asarray(block) for block in blocks.cpu])
    median, p90, p99 = (float(value) for value in np.percentile(wall, (50, 90, 99)))
    return Times(
        runs=len(wall),
        turns=len(blocks.wall),
        median_ms=median,
        p90_ms=p90,
        p99_ms=p99,
        least_ms=float(wall.min()),
        cpu_ms=float(np.median(cpu)),
        images_per_second=1e3 * batch / median,
    )


def ratio_of(ours: Blocks, theirs: Blocks, *, cpu: bool = False) -> Ratio:
    """Ratio of two models that took turns: of the medians of each turn.

    Args:
        cpu: of the processor's time and not of the clock's.
    """
    pairs = zip(*((b.cpu if cpu else b.wall) for b in (ours, theirs)), strict=True)
    turns = [statistics.median(a) / max(statistics.median(b), 1e-9) for a, b in pairs]
    low, high = np.percentile(turns, (10, 90))
    return Ratio(statistics.median(turns), float(low), float(high))
