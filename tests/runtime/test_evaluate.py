"""Metrics by generator, their means and intervals, and what is said about them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from qmdd.runtime.evaluate import MEASURES, Evaluation, evaluate
from qmdd.runtime.folder import Sample
from qmdd.runtime.intervals import wilson
from qmdd.runtime.known_sets import FORENSYNTHS, UNIVERSAL_FAKE_DETECT, Seen
from qmdd.runtime.metrics import metrics_of
from qmdd.runtime.scoring import Scored

ROOT = Path("data")
UNKNOWN = Seen(None, "unknown")


def _scored(generators: dict[str, tuple[int, int]], seed: int = 0, root: Path = ROOT) -> Scored:
    """So many real images and fakes of each generator; fakes score higher on average."""
    rng = np.random.default_rng(seed)
    samples, scores = [], []
    for generator, counts in generators.items():
        for label, (name, count) in enumerate(zip(("0_real", "1_fake"), counts, strict=True)):
            for index in range(count):
                samples.append(Sample(root / generator / name / f"{index}.png", label, generator))
                scores.append(1 / (1 + math.exp(-rng.normal(2 * label - 1, 1))))
    return Scored(samples, np.array(scores), [])


def _evaluated(scored: Scored, seen: Seen = UNKNOWN, threshold: float = 0.5) -> Evaluation:
    return evaluate(scored, ROOT, threshold=threshold, seen=seen)


def _of(scored: Scored, generator: str) -> tuple[list[int], list[float]]:
    rows = [i for i, sample in enumerate(scored.samples) if sample.generator == generator]
    return [scored.samples[i].label for i in rows], [float(scored.scores[i]) for i in rows]


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_rows_are_each_generators_own(threshold: float) -> None:
    """Interleaved samples: each generator gets its own scores; known ones come first."""
    scored = _scored({"zeta": (30, 20), "alpha": (12, 25), "progan": (9, 9)})
    order = np.random.default_rng(1).permutation(len(scored.samples))
    mixed = Scored([scored.samples[i] for i in order], scored.scores[order], [])
    found = _evaluated(mixed, threshold=threshold)
    assert [row.generator for row in found.rows] == ["progan", "alpha", "zeta"]
    assert [row.name for row in found.rows] == ["ProGAN", "alpha", "zeta"]
    assert found.images == 105
    for row in found.rows:
        labels, scores = _of(scored, row.generator)
        want = metrics_of(labels, scores, threshold)
        assert row.values == pytest.approx({name: getattr(want, name) for name in MEASURES})
        assert (row.reals, row.fakes) == (labels.count(0), labels.count(1))
        right = sum((s > threshold) == (y == 1) for y, s in zip(labels, scores, strict=True))
        assert row.intervals["acc"] == wilson(right, len(labels))
        for measure in MEASURES:
            low, high = row.intervals[measure]
            assert 0 <= low <= row.values[measure] <= high <= 1


def test_means_are_plain_means_over_generators() -> None:
    """Large and small generators count alike, as in the paper's tables."""
    found = _evaluated(_scored({"a": (40, 40), "b": (5, 5), "c": (10, 20)}))
    (mean,) = found.means
    assert (mean.generator, mean.name) == ("all", "mean")
    assert mean.generators == dict.fromkeys(MEASURES, 3)
    assert (mean.reals, mean.fakes) == (55, 65)
    for measure in MEASURES:
        values = [row.values[measure] for row in found.rows]
        assert mean.values[measure] == pytest.approx(sum(values) / 3, rel=1e-12)
        low, high = mean.intervals[measure]
        assert low <= mean.values[measure] <= high
        widths = [end - start for start, end in (row.intervals[measure] for row in found.rows)]
        assert high - low < max(widths)


def test_intervals_shrink_with_more_images() -> None:
    """Four times the images, about half the width, for every measure and for the mean."""
    few = _evaluated(_scored({"a": (50, 50), "b": (50, 50)}))
    many = _evaluated(_scored({"a": (800, 800), "b": (800, 800)}))
    for small, large in zip([*few.rows, *few.means], [*many.rows, *many.means], strict=True):
        for measure in MEASURES:
            before, after = small.intervals[measure], large.intervals[measure]
            assert after.high - after.low < 0.5 * (before.high - before.low)


def test_groups_of_seen_and_unseen() -> None:
    scored = _scored({"a": (9, 9), "b": (9, 9), "c": (9, 9)})
    found = _evaluated(scored, Seen(frozenset({"a", "gone"}), "record"))
    assert [row.group for row in found.rows] == ["seen", "unseen", "unseen"]
    assert [(mean.generator, mean.generators["ap"]) for mean in found.means] == [
        ("seen", 1),
        ("unseen", 2),
        ("all", 3),
    ]
    assert found.notes == ["seen in training, by the detector's own record: a"]
    unseen = [row.values["ap"] for row in found.rows[1:]]
    assert found.means[1].values["ap"] == pytest.approx(np.mean(unseen))
    assert found.to_dict()["seen"] == {"origin": "record", "generators": ["a"]}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (UNKNOWN, "no record of what the detector was trained on, so .* --seen"),
        (Seen(frozenset(), "record"), "by the detector's own record: none of these"),
        (Seen(frozenset("ab"), "given"), "as given: a, b"),
        (
            Seen(frozenset(), "rule", FORENSYNTHS.training),
            "none of these, if the detector was trained on ForenSynths' ProGAN, .* --seen names",
        ),
    ],
)
def test_one_group_alone_has_no_mean_of_its_own(seen: Seen, said: str) -> None:
    """It would repeat the mean of all; the note says what the group is."""
    found = _evaluated(_scored({"a": (5, 5), "b": (5, 5)}), seen)
    assert [mean.generator for mean in found.means] == ["all"]
    (note,) = found.notes
    assert re.search(said, note)


def test_a_generator_of_one_class() -> None:
    """Its own class's accuracy counts; no AP, and none of it in the mean of the APs."""
    found = _evaluated(_scored({"a": (20, 20), "b": (0, 30), "c": (30, 0)}))
    a, b, c = found.rows
    assert b.values["fake_acc"] == b.values["acc"]
    assert c.values["real_acc"] == c.values["acc"]
    assert math.isnan(b.values["real_acc"])
    assert math.isnan(c.values["fake_acc"])
    for row in (b, c):
        assert math.isnan(row.values["ap"])
        assert all(math.isnan(end) for end in row.intervals["ap"])
    (mean,) = found.means
    assert mean.generators == {"acc": 3, "ap": 1, "real_acc": 2, "fake_acc": 2}
    assert mean.values["ap"] == a.values["ap"]
    assert mean.intervals["ap"] == a.intervals["ap"]
    assert [note.split(":")[0] for note in found.notes[1:]] == [
        "b has no real images",
        "c has no fakes",
    ]


def test_nothing_but_generators_of_one_class() -> None:
    found = _evaluated(_scored({"b": (0, 9), "c": (9, 0)}))
    (mean,) = found.means
    assert math.isnan(mean.values["ap"])
    assert mean.generators["ap"] == 0
    assert not math.isnan(mean.values["acc"])


def test_known_sets_have_their_tables_means() -> None:
    """Each table's mean where all its generators are there beside others: the paper's "Avg."."""
    both = dict.fromkeys((*FORENSYNTHS.table, *UNIVERSAL_FAKE_DETECT.table, "crn"), (3, 3))
    found = _evaluated(_scored(both))
    assert [mean.generator for mean in found.means] == ["ForenSynths", "UniversalFakeDetect", "all"]
    first = [row.values["acc"] for row in found.rows if row.generator in FORENSYNTHS.table]
    assert len(first) == 8
    assert found.means[0].values["acc"] == pytest.approx(np.mean(first))
    # The table alone: its mean is the mean. One generator short: no mean of the table.
    alone = _evaluated(_scored(dict.fromkeys(FORENSYNTHS.table, (3, 3))))
    assert [mean.generator for mean in alone.means] == ["all"]
    del both["stargan"]
    assert [m.generator for m in _evaluated(_scored(both)).means] == ["UniversalFakeDetect", "all"]


def test_shared_real_images_count_once() -> None:
    """In every generator's row, once in the mean; the interval is wider than with images of one's
    own, because a lucky draw of them lifts all generators together.
    """
    own = _scored(dict.fromkeys(("a", "b", "c", "d"), (40, 40)))
    shared = Scored(
        [
            s if s.label else s._replace(path=ROOT / "laion/0_real" / s.path.name)
            for s in own.samples
        ],
        own.scores.copy(),
        [],
    )
    first = {s.path: score for s, score in reversed(list(zip(*shared[:2], strict=True)))}
    for index, sample in enumerate(shared.samples):
        shared.scores[index] = first[sample.path]
    found = _evaluated(shared)
    assert found.images == 40 + 160
    assert [row.reals for row in found.rows] == [40] * 4
    assert (found.means[0].reals, found.means[0].fakes) == (40, 160)
    assert len({row.intervals["real_acc"] for row in found.rows}) == 1
    apart = _evaluated(own).means[0].intervals["real_acc"]
    together = found.means[0].intervals["real_acc"]
    assert together.high - together.low > 1.4 * (apart.high - apart.low)


def test_the_same_wherever_the_folder_lies() -> None:
    """Resamples follow the names below the root, so results can be compared between machines."""
    counts = {"a": (20, 20), "b": (9, 15)}
    here = _evaluated(_scored(counts)).to_dict()
    moved = evaluate(
        _scored(counts, root=Path("/else/where")), "/else/where", threshold=0.5, seen=UNKNOWN
    )
    assert moved.to_dict() == here
    assert _evaluated(_scored(counts)).to_dict() == here


def test_plain_data() -> None:
    data = _evaluated(_scored({"a": (20, 20), "guided": (0, 10)})).to_dict()
    assert list(data["generators"]) == ["guided", "a"]
    assert data["generators"]["guided"]["name"] == "ADM"
    assert data["generators"]["a"].keys() == {
        *("name", "group", "images", "reals", "fakes"),
        *(f"{measure}{end}" for measure in MEASURES for end in ("", "_ci")),
    }
    assert data["means"]["all"]["generators"] == {
        "acc": 2,
        "ap": 1,
        "real_acc": 1,
        "fake_acc": 2,
    }
    assert data["seen"] == {"origin": "unknown", "generators": None}
    assert data["interval"]["resamples"] == 1000
