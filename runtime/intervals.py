"""Confidence intervals, 95 %, for accuracies and average precision.

* A share of images (an accuracy): Wilson's score interval (E. B. Wilson, "Probable inference, the
  law of succession, and statistical inference", JASA 22, 1927), which keeps to 0..1 and says
  something even where all images, or none, are right (Brown, Cai and DasGupta, "Interval estimation
  for a binomial proportion", Statistical Science 16, 2001).
* Average precision, and every mean over generators: the bootstrap's percentiles (Efron and
  Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Images are drawn with
  replacement within each class of each generator, so that every resample has the class balance of
  the data. Where classes separate perfectly, all resamples do, and the interval is one point: it
  cannot show what the sample does not hold.

Resamples are a function of the images' names: the same data give the same interval, and generators
that are measured against the same real images are resampled together.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEVEL = 0.95
#: The normal distribution's quantile that leaves half of the rest above it: 1.96.
_Z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
RESAMPLES = 1000
#: Counts drawn at once: bounds memory whatever the number of images.
_CHUNK = 1 << 16


class Interval(NamedTuple):
    """Lower and upper end, both 0..1; NaN where there is nothing to measure."""

    low: float
    high: float


NOTHING = Interval(float("nan"), float("nan"))


def wilson(correct: int, total: int) -> Interval:
    """Wilson's score interval of the share ``correct / total``."""
    if total == 0:
        return NOTHING
    share, square = correct / total, _Z**2 / total
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    # The ends are 0 and 1 in exact arithmetic.
    return Interval(
        0.0 if correct == 0 else centre - half, 1.0 if correct == total else centre + half
    )


def percentiles(values: F64) -> Interval:
    """The middle 95 % of ``values``; NaN if any is."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(float(low), float(high))


class Pool(NamedTuple):
    """The images of one class of a generator, resampled together.

    Attributes:
        scores: float64 ``[n]``, probability of fake.
        key: seed of its resamples, see :func:`pool_key`.
    """

    scores: F64
    key: int


class Resamples(NamedTuple):
    """Metrics of every resample, float64 ``[resamples]`` each; NaN where a class is not there."""

    acc: F64
    ap: F64
    real_acc: F64
    fake_acc: F64


def pool_key(names: Iterable[str]) -> int:
    """A seed from the names of a pool's images, in order."""
    state = hashlib.sha256()
    for name in names:
        state.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return int.from_bytes(state.digest()[:8], "little")


def resample(real: Pool, fake: Pool, threshold: float, resamples: int = RESAMPLES) -> Resamples:
    """Draw both classes anew, each at its own size, and measure every draw."""
    right = real.scores <= threshold, fake.scores > threshold
    size = right[0].size + right[1].size
    parts = []
    for drawn in _rows(_counts(real, resamples), _counts(fake, resamples)):
        hits = [counts @ correct for counts, correct in zip(drawn, right, strict=True)]
        acc = (hits[0] + hits[1]) / size if size else np.full(len(hits[0]), np.nan)
        shares = [
            hit / correct.size if correct.size else np.full(len(hit), np.nan)
            for hit, correct in zip(hits, right, strict=True)
        ]
        parts.append((acc, weighted_ap(real.scores, fake.scores, *drawn), *shares))
    return Resamples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _counts(pool: Pool, resamples: int) -> Iterator[I64]:
    """How often each image is drawn: int64 ``[some, n]``, ``resamples`` rows in all.

    Two pools with one key and one size get the same draws.
    """
    rng = np.random.default_rng(pool.key)
    size = pool.scores.size
    step = max(1, _CHUNK // max(size, 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        if size == 0:
            yield np.zeros((rows, 0), dtype=np.int64)
            continue
        drawn = rng.integers(0, size, (rows, size)) + np.arange(rows)[:, None] * size
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)


def _rows(first: Iterator[I64], second: Iterator[I64]) -> Iterator[tuple[I64, I64]]:
    """The rows of two streams side by side, however each of them is cut into chunks."""
    a, b = next(first, None), next(second, None)
    while a is not None and b is not None:
        rows = min(len(a), len(b))
        yield a[:rows], b[:rows]
        a = a[rows:] if len(a) > rows else next(first, None)
        b = b[rows:] if len(b) > rows else next(second, None)


def weighted_ap(real: F64, fake: F64, real_counts: I64, fake_counts: I64) -> F64:
    """Average precision, each image counted as often as it was drawn: float64 ``[rows]``.

    The same sum as scikit-learn's, ``sum over n of (R_n - R_{n-1}) P_n`` over distinct scores, for
    many rows of weights at once.

    Args:
        real, fake: scores float64 ``[r]``, ``[f]``.
        real_counts, fake_counts: int64 ``[rows, r]``, ``[rows, f]``.

    NaN unless both classes are there.
    """
    if not (real.size and fake.size):
        return np.full(len(real_counts), np.nan)
    scores = np.concatenate([real, fake])
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of ties
    weights = np.concatenate([np.zeros_like(real_counts), fake_counts], axis=1)[:, order]
    found = np.cumsum(weights, axis=1)[:, last]
    weights = np.concatenate([real_counts, fake_counts], axis=1)[:, order]
    called = np.cumsum(weights, axis=1)[:, last]
    gained = np.diff(found, axis=1, prepend=0)
    precision = found / np.maximum(called, 1)
    total: F64 = (gained * precision).sum(axis=1) / found[:, -1]
    return total
