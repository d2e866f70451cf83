"""Accuracy and average precision."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from qmdd.runtime.folder import Sample
from qmdd.runtime.metrics import average_precision, by_generator, metrics_of


def test_metrics_by_hand() -> None:
    """Scores .9 .8 .7 .6 .4 of fake, real, fake, fake, real.

    AP = sum over fakes of (precision there) / 3 = (1/1 + 2/3 + 3/4) / 3; at 0.5 three of three
    fakes and one of two reals are right.
    """
    got = metrics_of([1, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.4])
    assert got.images == 5
    assert got.acc == pytest.approx(4 / 5, rel=1e-12)
    assert got.real_acc == pytest.approx(1 / 2, rel=1e-12)
    assert got.fake_acc == pytest.approx(1.0, rel=1e-12)
    assert got.ap == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, rel=1e-12)


def test_the_threshold_moves_accuracy_and_not_ap() -> None:
    """At 0.65 the fake at .6 is missed; what ranks the scores does not change."""
    got = metrics_of([1, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.4], threshold=0.65)
    assert got.fake_acc == pytest.approx(2 / 3, rel=1e-12)
    assert got.ap == metrics_of([1, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.4]).ap


def test_a_score_of_exactly_one_half_is_real() -> None:
    """The threshold is strict: called fake only above it."""
    got = metrics_of([0, 1], [0.5, 0.5])
    assert (got.real_acc, got.fake_acc) == (1.0, 0.0)


def test_ties_share_their_precision() -> None:
    """All scores equal: AP is the share of fakes, whatever the order of the labels."""
    for labels in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert metrics_of(labels, [0.3] * 4).ap == pytest.approx(0.25, rel=1e-12)


def test_by_generator_keeps_scores_with_their_images() -> None:
    """Interleaved samples: each generator gets its own rows, generators by name."""
    labels = [0, 1, 1, 0, 1, 0]
    names = ["b", "a", "b", "a", "a", "b"]
    scores = [0.2, 0.9, 0.8, 0.6, 0.7, 0.1]
    samples = [Sample(Path(str(i)), labels[i], names[i]) for i in range(6)]
    found = by_generator(samples, scores)
    assert list(found) == ["a", "b"]
    assert found["a"] == metrics_of([1, 0, 1], [0.9, 0.6, 0.7])
    assert found["b"] == metrics_of([0, 1, 0], [0.2, 0.8, 0.1])


@pytest.mark.parametrize(("label", "missing"), [(1, "real_acc"), (0, "fake_acc")])
def test_a_class_that_is_not_there_has_no_accuracy_and_leaves_no_ap(
    label: int, missing: str
) -> None:
    """NaN rather than a number that means nothing (scikit-learn says 1 or 0, with a warning)."""
    got = metrics_of([label, label], [0.9, 0.2])
    assert math.isnan(getattr(got, missing))
    assert math.isnan(got.ap)
    assert got.acc == 0.5
    assert math.isnan(average_precision([], []))


@given(
    scored=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]) | st.floats(0, 1)),
        min_size=2,
        max_size=30,
    )
)
def test_average_precision_is_sklearns(scored: list[tuple[int, float]]) -> None:
    """Ties among the scores too."""
    labels, scores = zip(*scored, strict=True)
    assume(len(set(labels)) == 2)
    want = average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(want, abs=1e-12)
