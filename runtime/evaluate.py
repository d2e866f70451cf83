"""What a detector's scores are worth: metrics by generator, their means, and how sure they are.

As in the paper's Tables 2 and 3: accuracy at a threshold (0.5) and scikit-learn's average precision
of each generator's images, and the plain mean over generators. Intervals: :mod:`.intervals`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .folder import Sample
from .intervals import (
    F64,
    LEVEL,
    RESAMPLES,
    Interval,
    Pool,
    Resamples,
    percentiles,
    pool_key,
    resample,
    wilson,
)
from .known_sets import KNOWN_SETS, Seen, display_name, in_order
from .metrics import Metrics, metrics_of
from .scoring import Report, Scored

#: What is measured, in the order in which it is told.
MEASURES = ("acc", "ap", "real_acc", "fake_acc")


class Row(NamedTuple):
    """A generator's metrics, or a mean's, with an interval for each of :data:`MEASURES`.

    Attributes:
        generator: folder name; of a mean, ``seen``, ``unseen``, ``all`` or a known set's name.
        name: what it is called in the paper.
        group: ``seen``, ``unseen``, or ``None`` where that is not known.
        reals, fakes: images of each class (of a mean: different files).
        values: the measures, NaN where a class is not there.
        intervals: of each measure.
        generators: of how many generators each measure is the mean; 1 for a generator.
    """

    generator: str
    name: str
    group: str | None
    reals: int
    fakes: int
    values: dict[str, float]
    intervals: dict[str, Interval]
    generators: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found: dict[str, Any] = {
            "name": self.name,
            "group": self.group,
            "images": self.reals + self.fakes,
            "reals": self.reals,
            "fakes": self.fakes,
        }
        for measure in MEASURES:
            found[measure] = self.values[measure]
            found[f"{measure}_ci"] = list(self.intervals[measure])
        return found


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes:
        threshold: score above which an image counts as called fake.
        rows: one for each generator, known ones in the order of the paper's tables.
        means: over the seen, the unseen, each known set's table, and all generators.
        seen: which generators are grouped as seen, and by what.
        images: files scored.
        notes: what a reader of the figures has to know, a sentence each.
    """

    threshold: float
    rows: list[Row]
    means: list[Row]
    seen: Seen
    images: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN where there is nothing to measure."""
        names = self.seen.names
        return {
            "threshold": self.threshold,
            "images": self.images,
            "seen": {
                "origin": self.seen.origin,
                "generators": None if names is None else in_order(names),
            },
            "generators": {row.generator: row.to_dict() for row in self.rows},
            "means": {
                row.generator: {**row.to_dict(), "generators": row.generators} for row in self.means
            },
            "interval": {
                "level": LEVEL,
                "accuracy": "Wilson score",
                "ap": "bootstrap percentiles",
                "means": "bootstrap percentiles",
                "resamples": RESAMPLES,
            },
            "notes": self.notes,
        }


def evaluate(
    scored: Scored,
    root: str | os.PathLike[str],
    *,
    threshold: float,
    seen: Seen,
    report: Report | None = None,
) -> Evaluation:
    """Metrics of scored samples.

    Args:
        scored: of :func:`~.scoring.score_samples`.
        root: the folder of the samples: resampling depends on names below it.
        threshold: score above which an image counts as called fake.
        seen: which generators were seen in training, see :func:`~.known_sets.find_seen`.
        report: called with ``(what is being done, done, total)``.
    """
    say = report or (lambda _what, _done, _total: None)
    members: dict[str, list[int]] = {}
    for index, sample in enumerate(scored.samples):
        members.setdefault(sample.generator, []).append(index)
    order = in_order(members)
    if seen.names is not None:
        seen = seen._replace(names=seen.names & members.keys())
    rows, draws = [], {}
    for done, generator in enumerate(order):
        say("intervals", done, len(order))
        group = None
        if seen.names is not None:
            group = "seen" if generator in seen.names else "unseen"
        samples = [scored.samples[index] for index in members[generator]]
        scores = scored.scores[members[generator]]
        row, draws[generator] = _row(generator, group, samples, scores, root, threshold)
        rows.append(row)
    say("intervals", len(order), len(order))
    files = {
        name: {scored.samples[index].path: scored.samples[index].label for index in indices}
        for name, indices in members.items()
    }
    means = [
        _mean(key, shown, group, chosen, draws, files)
        for key, shown, group, chosen in _groups(rows)
    ]
    images = len({sample.path for sample in scored.samples})
    return Evaluation(
        threshold, rows, means, seen, images, [_seen_note(seen), *_notes(rows, scored.lost)]
    )


def _row(
    generator: str,
    group: str | None,
    samples: list[Sample],
    scores: F64,
    root: str | os.PathLike[str],
    threshold: float,
) -> tuple[Row, Resamples]:
    labels = np.array([sample.label for sample in samples])
    metrics: Metrics = metrics_of(labels, scores, threshold)
    pools = []
    for label in (0, 1):
        names = (s.path.relative_to(root).as_posix() for s in samples if s.label == label)
        pools.append(Pool(scores[labels == label], pool_key(names)))
    drawn = resample(pools[0], pools[1], threshold)
    right = (scores > threshold) == (labels == 1)
    intervals = {
        "acc": wilson(int(right.sum()), right.size),
        "ap": percentiles(drawn.ap),
        "real_acc": wilson(int(right[labels == 0].sum()), int((labels == 0).sum())),
        "fake_acc": wilson(int(right[labels == 1].sum()), int((labels == 1).sum())),
    }
    row = Row(
        generator,
        display_name(generator),
        group,
        int((labels == 0).sum()),
        int((labels == 1).sum()),
        {measure: float(getattr(metrics, measure)) for measure in MEASURES},
        intervals,
        dict.fromkeys(MEASURES, 1),
    )
    return row, drawn


def _groups(rows: list[Row]) -> list[tuple[str, str, str | None, list[Row]]]:
    """Key, name, group and generators of each mean; a group of all or none is left out."""
    groups: list[tuple[str, str, str | None, list[Row]]] = []
    for group in ("seen", "unseen"):
        chosen = [row for row in rows if row.group == group]
        if chosen and len(chosen) < len(rows):
            groups.append((group, f"mean, {group}", group, chosen))
    for known in KNOWN_SETS:
        chosen = [row for row in rows if row.generator.lower() in known.table]
        if len(chosen) == len(known.table) < len(rows):
            groups.append((known.name, f"mean, {known.name}", None, chosen))
    return [*groups, ("all", "mean", None, rows)]


def _mean(
    key: str,
    name: str,
    group: str | None,
    rows: list[Row],
    draws: dict[str, Resamples],
    files: dict[str, dict[Path, int]],
) -> Row:
    """The plain mean over those generators that have the measure."""
    values, intervals, counts = {}, {}, {}
    for measure in MEASURES:
        chosen = [row for row in rows if not np.isnan(row.values[measure])]
        counts[measure] = len(chosen)
        if not chosen:
            values[measure], intervals[measure] = float("nan"), Interval(float("nan"), float("nan"))
            continue
        values[measure] = float(np.mean([row.values[measure] for row in chosen]))
        drawn = [getattr(draws[row.generator], measure) for row in chosen]
        intervals[measure] = percentiles(np.mean(drawn, axis=0))
    labels = {path: label for row in rows for path, label in files[row.generator].items()}
    fakes = sum(labels.values())
    return Row(key, name, group, len(labels) - fakes, fakes, values, intervals, counts)


def _seen_note(seen: Seen) -> str:
    """Where the grouping comes from, or why there is none."""
    if seen.names is None:
        return (
            "no record of what the detector was trained on, so generators are not grouped; name "
            "those that it has seen with --seen"
        )
    names = ", ".join(display_name(name) for name in in_order(seen.names)) or "none of these"
    return {
        "given": f"seen in training, as given: {names}",
        "record": f"seen in training, by the detector's own record: {names}",
        "rule": f"seen in training: {names}, if the detector was trained on {seen.training}; it "
        "has no record of its own, --seen names others",
    }[seen.origin]


def _notes(rows: list[Row], lost: Sequence[str]) -> list[str]:
    notes = [f"{display_name(name)} has no image that can be used: it is left out" for name in lost]
    for row in rows:
        if not (row.reals and row.fakes):
            missing = "real images" if row.fakes else "fakes"
            notes.append(
                f"{row.name} has no {missing}: no AP of it, and it is not in the mean of the APs"
            )
    return notes
