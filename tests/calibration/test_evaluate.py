"""Scores with the torch detector: each image's own, on the pixels that a bundle would see."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.evaluate import (
    scores_of,
    subject_from_checkpoint,
    subject_from_detector,
    verdicts_of,
)
from qmdd.calibration.train import save_detector
from qmdd.models import Detector
from qmdd.runtime.contract import SIDES
from qmdd.runtime.errors import ImageError
from qmdd.runtime.folder import Sample, scan
from qmdd.runtime.images import load_rgb
from qmdd.runtime.preprocess import prepare


def _alone(detector: Detector, path: Path) -> float:
    pixels = torch.from_numpy(prepare(load_rgb(path), **SIDES))[None]
    with torch.no_grad():
        return 1 / (1 + math.exp(-float(detector(pixels))))


@pytest.fixture
def odd(image_folder: Path, tmp_path: Path) -> Path:
    """An image of odd width: the bundle's contract crops it to 50x40."""
    path = tmp_path / "odd.png"
    with Image.open(scan(image_folder)[0].path) as image:
        image.crop((0, 0, 51, 40)).save(path)
    return path


def test_scores_are_each_images_own(
    image_folder: Path, tiny_detector: Callable[..., Detector], odd: Path
) -> None:
    """Sizes mixed, batches split and order kept: as if every image had been scored alone.

    Batching may change the closing float sums in their last bits: 1e-6 of a probability.
    """
    samples = scan(image_folder)
    samples = [*samples[:5], Sample(odd, 0, "odd"), *samples[5:]]
    detector = tiny_detector().train()
    seen: list[int] = []
    scores = scores_of(detector, samples, batch=4, report=seen.append)
    assert not detector.training
    assert scores.dtype == np.float64
    assert seen == list(range(1, 14))
    for sample, score in zip(samples, scores, strict=True):
        assert abs(_alone(detector, sample.path) - score) <= 1e-6
    assert scores_of(detector, []).shape == (0,)


def test_large_images_are_cropped_as_a_bundle_crops_them(
    tiny_detector: Callable[..., Detector], tmp_path: Path
) -> None:
    """600x40: the middle 512 columns. What lies outside changes nothing."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    pixels[:, :44] = 0
    pixels[:, -44:] = 255
    Image.fromarray(pixels).save(tmp_path / "b.png")
    pixels[:, 44] = 0
    Image.fromarray(pixels).save(tmp_path / "c.png")
    names = [tmp_path / f"{name}.png" for name in "abc"]
    first, second, third = (v.score for v in verdicts_of(tiny_detector(), names))
    assert first == second != third


def test_an_unusable_image_gets_its_error_in_its_place(
    image_folder: Path, tiny_detector: Callable[..., Detector], tmp_path: Path
) -> None:
    """Images that wait for their batch come before it; batches hold at most four."""
    good = [sample.path for sample in scan(image_folder)]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    small = tmp_path / "small.png"
    Image.new("RGB", (8, 8)).save(small)
    paths = [*good[:2], bad, *good[2:], small]
    detector = tiny_detector()
    sizes: list[int] = []
    detector.register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    found = list(verdicts_of(detector, paths))
    assert [verdict.path for verdict in found] == paths
    assert [str(v.path) in (v.error or "") for v in found] == [p in (bad, small) for p in paths]
    assert "at least 32x32" in (found[-1].error or "")
    assert sizes == [2, 4, 4, 2]
    with pytest.raises(ImageError, match=r"bad\.png"):
        scores_of(detector, [Sample(path, 0, "a") for path in paths])


def test_a_detector_that_gives_no_number(
    image_folder: Path, tiny_detector: Callable[..., Detector]
) -> None:
    detector = tiny_detector()
    detector.register_forward_hook(lambda _m, _a, out: out * math.nan)
    with pytest.raises(CalibrationError, match=r"0\.png: the detector's logit is not a number"):
        scores_of(detector, scan(image_folder))


@pytest.mark.parametrize("bits", [2, 32])
def test_subject_of_a_checkpoint(
    bits: int,
    image_folder: Path,
    tiny_detector: Callable[..., Detector],
    narrow: None,
    tmp_path: Path,
) -> None:
    """Quantised and in full precision: the file's own detector, with what it was trained on."""
    path = tmp_path / "c.safetensors"
    detector = tiny_detector(bits=bits)
    save_detector(detector, path, {"generators": json.dumps(["alpha"])})
    subject = subject_from_checkpoint(path)
    assert (subject.kind, subject.arch, subject.bits) == ("checkpoint", "resnet23", bits)
    assert subject.trained_on == ("alpha",)
    assert (subject.threshold, subject.sides) == (0.5, SIDES)
    paths = [sample.path for sample in scan(image_folder)][:3]
    want = [v.score for v in subject_from_detector(detector, path).detect(paths)]
    # Sums of floats are rounded by how weights lie in memory; sums of codes are exact.
    slack = 0 if bits == 2 else 1e-6
    assert [v.score for v in subject.detect(paths)] == pytest.approx(want, rel=0, abs=slack)
    assert subject_from_detector(detector, path).trained_on is None


def test_a_record_that_is_none(
    tiny_detector: Callable[..., Detector], narrow: None, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    save_detector(tiny_detector(), path, {"generators": "{"})
    with pytest.raises(CalibrationError, match=r"c\.safetensors: its record .* train it again"):
        subject_from_checkpoint(path)
