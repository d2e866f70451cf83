"""Two detectors on the same images: what the difference of their accuracies and APs is worth.

* The difference of two shares or APs: the bootstrap's percentiles. In every resample both detectors
  see the same images (:func:`~..intervals.resample` draws by the images' names), so what makes an
  image hard for both does not count as a difference.
* Which of two is right more often: McNemar's test (Q. McNemar, "Note on the sampling error of the
  difference between correlated proportions", Psychometrika 12, 1947), exact: of the images on which
  only one is right, either is right with probability 1/2 if they are equally good.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..folder import Sample
from ..intervals import (
    F64,
    LEVEL,
    RESAMPLES,
    Interval,
    Pool,
    Resamples,
    percentiles,
    pool_key,
    resample,
)
from ..known_sets import display_name, in_order
from ..metrics import metrics_of
from ..scoring import Report, Subject, Unusable, score_samples

MEASURES = ("acc", "ap")


class PairedRow(NamedTuple):
    """One generator's images, or the mean over generators.

    Attributes:
        generator: folder name; ``all`` of the mean.
        name: what it is called.
        images: how many.
        a, b: ``acc`` and ``ap`` of both, 0..1; NaN where a class is not there.
        difference: of each measure ``b - a``.
        intervals: of each difference.
    """

    generator: str
    name: str
    images: int
    a: dict[str, float]
    b: dict[str, float]
    difference: dict[str, float]
    intervals: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        intervals = {f"{key}_ci": list(self.intervals[key]) for key in MEASURES}
        return {**self._asdict(), "intervals": intervals}


class Paired(NamedTuple):
    """What :func:`compare_scores` found.

    Attributes:
        rows: one for each generator, then the mean.
        images: files.
        only_a, only_b: images on which only that one is right.
        verdicts: images that get different verdicts.
        p: of McNemar's test, two-sided.
        max_score_diff: the largest difference of two scores.
    """

    rows: list[PairedRow]
    images: int
    only_a: int
    only_b: int
    verdicts: int
    p: float
    max_score_diff: float

    @property
    def mean(self) -> PairedRow:
        """Over the generators."""
        return self.rows[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = self._asdict()
        return {
            **plain,
            "rows": [row.to_dict() for row in self.rows],
            "interval": {"level": LEVEL, "difference": "bootstrap percentiles, paired"},
            "resamples": RESAMPLES,
            "test": "McNemar, exact, two-sided",
        }


def score_both(
    samples: Sequence[Sample],
    a: Subject,
    b: Subject,
    root: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    skip_bad: bool = False,
    report: Report | None = None,
) -> tuple[Paired, list[Unusable]]:
    """Score the same samples with both, and compare; further what neither is measured on.

    Args:
        threshold: of both; default: each one's own.
        skip_bad: leave out images that either cannot use, instead of failing.
        report: called with ``(what is being done, done, total)``.

    Raises:
        DataError, SessionError: see :func:`~..scoring.score_samples`.
    """
    scored = [
        score_samples(samples, subject, skip_bad=skip_bad, report=report) for subject in (a, b)
    ]
    scores = [dict(zip(found.samples, found.scores, strict=True)) for found in scored]
    kept = [sample for sample in samples if sample in scores[0] and sample in scores[1]]
    left_out = {item.path: item for found in scored for item in found.skipped}
    bars = [subject.threshold if threshold is None else threshold for subject in (a, b)]
    paired = compare_scores(
        kept,
        np.array([scores[0][sample] for sample in kept], dtype=np.float64),
        np.array([scores[1][sample] for sample in kept], dtype=np.float64),
        root,
        thresholds=(bars[0], bars[1]),
    )
    return paired, sorted(left_out.values())


def compare_scores(
    samples: Sequence[Sample],
    a: F64,
    b: F64,
    root: str | os.PathLike[str],
    *,
    thresholds: tuple[float, float],
) -> Paired:
    """Two detectors' scores of the same samples.

    Args:
        samples: the images.
        a, b: float64 ``[len(samples)]``, probability of fake by each.
        root: the folder of the samples: resampling depends on names below it.
        thresholds: of each, the score above which an image counts as called fake.
    """
    scores = np.stack([a, b])
    labels = np.array([sample.label for sample in samples])
    members: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        members.setdefault(sample.generator, []).append(index)
    rows, draws = [], []
    for generator in in_order(members):
        chosen = members[generator]
        some = [samples[index] for index in chosen]
        row, drawn = _row(generator, some, scores[:, chosen], labels[chosen], root, thresholds)
        rows.append(row)
        draws.append(drawn)
    # An image that is a sample of several generators is one image.
    once = list({sample.path: index for index, sample in enumerate(samples)}.values())
    called = [scores[side, once] > thresholds[side] for side in (0, 1)]
    right = [verdicts == (labels[once] == 1) for verdicts in called]
    only_a = int((right[0] & ~right[1]).sum())
    only_b = int((right[1] & ~right[0]).sum())
    return Paired(
        [*rows, _mean(rows, draws, len(once))],
        len(once),
        only_a,
        only_b,
        int((called[0] != called[1]).sum()),
        mcnemar(only_a, only_b),
        float(np.abs(a - b).max()),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided test of equal chances; 1 where nothing speaks against them.

    >>> mcnemar(0, 5), mcnemar(4, 4)
    (0.0625, 1.0)
    """
    count = only_a + only_b
    if count == 0:
        return 1.0
    # Logarithms: the binomials of many images are no floats.
    whole = math.lgamma(count + 1) - count * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1))
        for k in range(min(only_a, only_b) + 1)
    )
    return min(1.0, round(2 * tail, 12))


def _row(
    generator: str,
    samples: Sequence[Sample],
    scores: F64,
    labels: np.ndarray[Any, Any],
    root: str | os.PathLike[str],
    thresholds: tuple[float, float],
) -> tuple[PairedRow, tuple[Resamples, Resamples]]:
    keys = [
        pool_key(s.path.relative_to(root).as_posix() for s in samples if s.label == label)
        for label in (0, 1)
    ]
    values, drawn = [], []
    for side in (0, 1):
        pools = [Pool(scores[side, labels == label], keys[label]) for label in (0, 1)]
        metrics = metrics_of(labels, scores[side], thresholds[side])
        values.append({key: float(getattr(metrics, key)) for key in MEASURES})
        drawn.append(resample(pools[0], pools[1], thresholds[side]))
    row = PairedRow(
        generator,
        display_name(generator),
        len(samples),
        values[0],
        values[1],
        {key: values[1][key] - values[0][key] for key in MEASURES},
        {key: percentiles(getattr(drawn[1], key) - getattr(drawn[0], key)) for key in MEASURES},
    )
    return row, (drawn[0], drawn[1])


def _mean(
    rows: Sequence[PairedRow], draws: Sequence[tuple[Resamples, Resamples]], images: int
) -> PairedRow:
    """The plain mean over those generators that have the measure."""
    sides: list[dict[str, float]] = [{}, {}]
    difference, intervals = {}, {}
    for key in MEASURES:
        kept = [index for index, row in enumerate(rows) if not math.isnan(row.difference[key])]
        if not kept:
            sides[0][key] = sides[1][key] = difference[key] = math.nan
            intervals[key] = Interval(math.nan, math.nan)
            continue
        for side, name in enumerate(("a", "b")):
            sides[side][key] = float(np.mean([getattr(rows[i], name)[key] for i in kept]))
        difference[key] = sides[1][key] - sides[0][key]
        drawn = [getattr(draws[i][1], key) - getattr(draws[i][0], key) for i in kept]
        intervals[key] = percentiles(np.mean(drawn, axis=0))
    return PairedRow("all", "mean", images, sides[0], sides[1], difference, intervals)
