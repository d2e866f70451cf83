"""Accuracy and average precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qmdd.calibration.evaluate import scores_of
from qmdd.models import Detector
from qmdd.runtime.folder import Sample, scan
from qmdd.runtime.images import load_rgb
from qmdd.runtime.metrics import by_generator, metrics_of


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


def test_a_score_of_exactly_one_half_is_real() -> None:
    """The threshold is strict: called fake only above it."""
    got = metrics_of([0, 1], [0.5, 0.5])
    assert (got.real_acc, got.fake_acc) == (1.0, 0.0)


def test_ties_share_their_precision() -> None:
    """All scores equal: AP is the share of fakes, whatever the order of the labels."""
    for labels in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert metrics_of(labels, [0.3] * 4).ap == pytest.approx(0.25, rel=1e-12)


def test_a_class_that_is_not_there_has_no_accuracy() -> None:
    """NaN rather than a number that means nothing."""
    got = metrics_of([1, 1], [0.9, 0.2])
    assert math.isnan(got.real_acc)
    assert got.fake_acc == got.acc == 0.5


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


def test_scores_are_each_images_own(
    image_folder: Path, tiny_detector: Callable[..., Detector], tmp_path: Path
) -> None:
    """Sizes mixed, batches split and order kept: as if every image had been scored alone.

    Batching may change the closing float sums in their last bits: 1e-6 of a probability.
    """
    samples = scan(image_folder)
    odd = tmp_path / "odd.png"
    with Image.open(samples[0].path) as image:
        image.crop((0, 0, 51, 40)).save(odd)
    samples = [*samples[:5], Sample(odd, 0, "odd"), *samples[5:]]
    detector = tiny_detector().train()
    seen: list[int] = []
    scores = scores_of(detector, samples, batch=4, report=seen.append)
    assert not detector.training
    assert scores.dtype == np.float64
    assert seen == [4, 5, 6, 10, 13]
    for sample, score in zip(samples, scores, strict=True):
        pixels = torch.from_numpy(load_rgb(sample.path)).permute(2, 0, 1)[None]
        with torch.no_grad():
            want = torch.sigmoid(detector(pixels))
        assert abs(float(want) - score) <= 1e-6
    assert scores_of(detector, []).shape == (0,)
