"""Confidence intervals: by hand, by property, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from qmdd.runtime import intervals
from qmdd.runtime.intervals import (
    Pool,
    percentiles,
    pool_key,
    resample,
    weighted_ap,
    wilson,
)

SCORES = st.lists(
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0]), min_size=1, max_size=12
)


def test_wilson_by_hand() -> None:
    """8 of 10 with z = 1.96: centre (0.8 + z²/20) / (1 + z²/10), the textbook's 0.490 to 0.943."""
    z = 1.959964
    centre = (0.8 + z**2 / 20) / (1 + z**2 / 10)
    half = z / (1 + z**2 / 10) * (0.8 * 0.2 / 10 + z**2 / 400) ** 0.5
    got = wilson(8, 10)
    assert got == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert got == pytest.approx((0.4902, 0.9433), abs=1e-4)


@given(total=st.integers(1, 2000), data=st.data())
def test_wilson_holds_the_share_within_bounds(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert high - low > 0
    mirrored = wilson(total - correct, total)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=1e-12)


@given(total=st.integers(1, 2000), data=st.data())
def test_wilson_is_scipys(total: int, data: st.DataObject) -> None:
    from scipy.stats import binomtest

    correct = data.draw(st.integers(0, total))
    want = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((want.low, want.high), abs=1e-12)


@given(share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), total=st.sampled_from([10, 50, 300]))
def test_wilson_shrinks_with_more_images(share: float, total: int) -> None:
    widths = []
    for size in (total, 4 * total):
        low, high = wilson(round(share * size), size)
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


def test_all_right_and_all_wrong_still_leave_doubt() -> None:
    """The "rule of three": about 3/n is not ruled out; Wilson says z²/(n + z²)."""
    assert wilson(100, 100).high == 1.0
    assert wilson(100, 100).low == pytest.approx(1 - 3.8415 / 103.8415, abs=1e-5)
    assert wilson(0, 100) == pytest.approx((0.0, 3.8415 / 103.8415), abs=1e-5)
    assert all(np.isnan(end) for end in wilson(0, 0))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_wilson_holds_the_truth_about_95_times_in_100(share: float) -> None:
    """The exact coverage at n = 80: every outcome, weighted by its binomial probability."""
    from scipy.stats import binom

    outcomes = np.arange(81)
    held = [wilson(int(k), 80).low <= share <= wilson(int(k), 80).high for k in outcomes]
    coverage = float(binom.pmf(outcomes, 80, share)[held].sum())
    assert 0.92 <= coverage <= 0.985


@settings(max_examples=40)
@given(real=SCORES, fake=SCORES, seed=st.integers(0, 1000))
def test_weighted_ap_is_sklearns(real: list[float], fake: list[float], seed: int) -> None:
    """Many rows of weights at once, ties and images that were not drawn among them."""
    rng = np.random.default_rng(seed)
    drawn = [
        rng.multinomial(len(pool), np.full(len(pool), 1 / len(pool)), 3) for pool in (real, fake)
    ]
    got = weighted_ap(np.array(real), np.array(fake), drawn[0], drawn[1])
    labels = [0] * len(real) + [1] * len(fake)
    for row in range(3):
        weights = np.concatenate([drawn[0][row], drawn[1][row]])
        want = average_precision_score(labels, [*real, *fake], sample_weight=weights)
        assert got[row] == pytest.approx(want, abs=1e-12)


@given(real=SCORES, fake=SCORES)
def test_resamples_keep_the_classes_and_the_bounds(real: list[float], fake: list[float]) -> None:
    """In every resample, accuracy is the mean of both classes' weighted by their sizes."""
    got = resample(Pool(np.array(real), 1), Pool(np.array(fake), 2), 0.5, resamples=50)
    sizes = np.array([len(real), len(fake)])
    want = (got.real_acc * sizes[0] + got.fake_acc * sizes[1]) / sizes.sum()
    np.testing.assert_allclose(got.acc, want, atol=1e-12)
    for column in got:
        assert column.shape == (50,)
        assert (column >= 0).all()
        assert (column <= 1 + 1e-12).all()


def test_resamples_of_one_class() -> None:
    """No AP and nothing of the other class; its own accuracy all the same."""
    scores = np.array([0.2, 0.9, 0.8])
    got = resample(Pool(np.zeros(0), 1), Pool(scores, 2), 0.5, resamples=20)
    assert np.isnan(got.ap).all()
    assert np.isnan(got.real_acc).all()
    np.testing.assert_array_equal(got.acc, got.fake_acc)
    nothing = resample(Pool(np.zeros(0), 1), Pool(np.zeros(0), 2), 0.5, resamples=5)
    assert all(np.isnan(column).all() for column in nothing)
    assert all(np.isnan(end) for end in percentiles(got.ap))


def test_perfect_and_hopeless_scores() -> None:
    """The bootstrap cannot see what the sample does not hold: one point."""
    low, high = np.linspace(0, 0.4, 30), np.linspace(0.6, 1, 30)
    perfect = resample(Pool(low, 1), Pool(high, 2), 0.5)
    assert percentiles(perfect.ap) == percentiles(perfect.acc) == (1.0, 1.0)
    hopeless = resample(Pool(high, 1), Pool(low, 2), 0.5)
    assert percentiles(hopeless.acc) == (0.0, 0.0)
    assert percentiles(hopeless.ap).high < 0.5


def test_resamples_depend_on_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same names, the same draws, however they are cut into chunks; other names, others."""
    rng = np.random.default_rng(0)
    real, fake = rng.random(70), rng.random(50)
    keys = pool_key(["a/0_real/1.png", "a/0_real/2.png"]), pool_key(["a/1_fake/1.png"])
    first = resample(Pool(real, keys[0]), Pool(fake, keys[1]), 0.5, resamples=200)
    again = resample(Pool(real, keys[0]), Pool(fake, keys[1]), 0.5, resamples=200)
    monkeypatch.setattr(intervals, "_CHUNK", 500)
    chunked = resample(Pool(real, keys[0]), Pool(fake, keys[1]), 0.5, resamples=200)
    other = resample(Pool(real, keys[0]), Pool(fake, keys[1] + 1), 0.5, resamples=200)
    for one, two, three in zip(first, again, chunked, strict=True):
        np.testing.assert_array_equal(one, two)
        # numpy's sums are rounded in another order where a row lies elsewhere in memory.
        np.testing.assert_allclose(one, three, rtol=0, atol=1e-12)
    # Shared real images are resampled together.
    np.testing.assert_array_equal(first.real_acc, other.real_acc)
    assert not np.array_equal(first.fake_acc, other.fake_acc)
    assert pool_key(["ab", "c"]) != pool_key(["a", "bc"])


def test_intervals_of_ap_hold_the_truth_about_95_times_in_100() -> None:
    """Normal scores one spread apart: AP is known from a large sample; 80 images a generator, 400.

    Percentile intervals are known to fall a little short in small samples.
    """
    rng = np.random.default_rng(3)
    large = rng.normal(0, 1, 200_000), rng.normal(1, 1, 200_000)
    truth = average_precision_score(np.repeat([0, 1], 200_000), np.concatenate(large))
    held = []
    for trial in range(400):
        real, fake = rng.normal(0, 1, 40), rng.normal(1, 1, 40)
        drawn = resample(Pool(real, 2 * trial), Pool(fake, 2 * trial + 1), 0.5, resamples=300)
        low, high = percentiles(drawn.ap)
        assert 0 <= low <= high <= 1
        held.append(low <= truth <= high)
    assert 0.90 <= np.mean(held) <= 0.98


def test_intervals_of_a_mean_hold_the_truth() -> None:
    """Three generators, one set of real images for all: the mean accuracy's interval.

    Resampled apart, the shared images would make the interval too narrow; together they do not.
    """
    from scipy.stats import norm

    rng = np.random.default_rng(4)
    truth = (norm.cdf(0.5) + (1 - norm.cdf(-0.5))) / 2
    held, apart = [], []
    for trial in range(250):
        real = rng.normal(0, 1, 60)
        fakes = [rng.normal(1, 1, 60) for _ in range(3)]
        for shared, into in ((True, held), (False, apart)):
            drawn = [
                resample(
                    Pool(real, trial if shared else 10_000 * (i + 1) + trial),
                    Pool(fake, 50_000 * (i + 1) + trial),
                    0.5,
                    resamples=120,
                ).acc
                for i, fake in enumerate(fakes)
            ]
            low, high = percentiles(np.mean(drawn, axis=0))
            into.append(low <= truth <= high)
    assert 0.90 <= np.mean(held) <= 0.98
    assert np.mean(apart) < np.mean(held) - 0.02


def test_memory_of_resampling_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No array of more than a chunk's counts is drawn at once."""
    sizes = []
    original = intervals.weighted_ap

    def spy(real, fake, real_counts, fake_counts):
        sizes.append(real_counts.size + fake_counts.size)
        return original(real, fake, real_counts, fake_counts)

    monkeypatch.setattr(intervals, "weighted_ap", spy)
    rng = np.random.default_rng(0)
    resample(Pool(rng.random(3000), 1), Pool(rng.random(2500), 2), 0.5, resamples=100)
    assert max(sizes) <= 2 * intervals._CHUNK
    assert len(sizes) > 1
