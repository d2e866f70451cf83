"""From files to verdicts."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qmdd.runtime import detector as detector_module
from qmdd.runtime import pipeline
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.detector import Detector, Verdict, score_from_logit, verdict_from_score
from qmdd.runtime.errors import BundleError, ImageError, SessionError
from qmdd.runtime.pixels import load_prepared

U8 = npt.NDArray[np.uint8]
BundleFactory = Callable[..., Path]


@pytest.fixture
def detector(make_bundle: BundleFactory) -> Detector:
    """The tiny model's: an image's logit is ``(mean - 128) / 32``."""
    return Detector.open(make_bundle(), threads=1)


def _image(folder: Path, name: str, level: int, size: tuple[int, int] = (40, 40)) -> Path:
    path = folder / name
    Image.new("RGB", size, (level, level, level)).save(path)
    return path


def test_scores_and_verdicts(detector: Detector, tmp_path: Path) -> None:
    paths = [_image(tmp_path, f"{level}.png", level) for level in (64, 128, 160, 255)]
    found = list(detector.detect(paths))
    scores = [1 / (1 + math.exp(-logit)) for logit in (-2, 0, 1, 127 / 32)]
    for verdict, path, score in zip(found, paths, scores, strict=True):
        assert verdict.path == path
        assert verdict.score == pytest.approx(score, rel=1e-15)  # one rounding of exp
        assert verdict.error is None
    assert [verdict.verdict for verdict in found] == ["real", "real", "fake", "fake"]


def test_the_threshold_is_the_bundles_unless_given(detector: Detector, tmp_path: Path) -> None:
    path = _image(tmp_path, "a.png", 160)  # score 0.73

    def verdict(threshold: float | None) -> str | None:
        return next(detector.detect([path], threshold=threshold)).verdict

    assert [verdict(t) for t in (None, 0.0, 0.7, 0.8, 1.0)] == [
        "fake",
        "fake",
        "fake",
        "real",
        "real",
    ]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_outside_is_refused_at_once(detector: Detector, threshold: float) -> None:
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        detector.detect([], threshold=threshold)


def test_bad_images_do_not_end_the_run(detector: Detector, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("words")
    paths = [
        _image(tmp_path, "first.png", 255),
        text,
        tmp_path / "absent.png",
        tmp_path,
        _image(tmp_path, "small.png", 255, (31, 400)),
        _image(tmp_path, "dot.png", 255, (1, 1)),
        _image(tmp_path, "last.png", 0),
    ]
    found = list(detector.detect(paths))
    assert [verdict.path for verdict in found] == paths
    assert [verdict.verdict for verdict in found] == ["fake", *[None] * 5, "real"]
    for verdict in found[1:-1]:
        assert verdict.score is None
        assert verdict.error is not None
        assert verdict.error.startswith(f"{verdict.path}: ")
    assert "31x400 pixels is too small; the model needs at least 32x32" in str(found[4].error)


def test_an_endless_stream_works_and_no_image_outlives_its_score(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is loaded before it is asked for; with one thread, one image is in memory."""
    path = _image(tmp_path, "a.png", 255)
    loaded: list[weakref.ref[U8]] = []

    def load(given_path: Path, sides: dict[str, int]) -> U8:
        assert all(reference() is None for reference in loaded)
        image = load_prepared(given_path, sides)
        loaded.append(weakref.ref(image))
        return image

    monkeypatch.setattr(pipeline, "load_prepared", load)
    stream = detector.detect(itertools.repeat(path))
    assert not loaded
    assert [verdict.verdict for verdict in itertools.islice(stream, 50)] == ["fake"] * 50
    assert 50 <= len(loaded) <= 50 + 1 + 8  # as far ahead as results may wait


def test_large_images_are_cropped_not_refused(detector: Detector) -> None:
    """The middle 64x64 of 100x100 is white, all around it is black."""
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[18:82, 18:82] = 255
    assert detector.score_image(image) == pytest.approx(score_from_logit(127 / 32), rel=1e-15)


def test_other_arrays_are_refused(detector: Detector) -> None:
    with pytest.raises(ImageError, match="must be uint8"):
        detector.score_image(np.zeros((40, 40, 3), dtype=np.float32))


def test_a_model_that_gives_no_number_is_reported(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken model is no property of the image: the run ends."""

    def logits(_: U8) -> npt.NDArray[np.float32]:
        return np.array([np.nan], dtype=np.float32)

    monkeypatch.setattr(detector._session, "logits", logits)
    with pytest.raises(SessionError, match="not a number"):
        list(detector.detect([_image(tmp_path, "a.png", 255)]))


def test_damaged_bundles_are_refused(make_bundle: BundleFactory) -> None:
    folder = make_bundle()
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx: its SHA-256 differs"):
        Detector.open(folder)


def test_a_bundle_whose_model_is_none_is_refused(
    make_bundle: BundleFactory, tiny_manifest: Callable[[], dict[str, Any]]
) -> None:
    manifest = tiny_manifest()
    manifest["files"]["model.onnx"] = manifest["files"]["parity/golden.safetensors"]
    folder = make_bundle(manifest)
    (folder / "model.onnx").write_bytes(b"golden")
    with pytest.raises(SessionError, match=r"model\.onnx: cannot be loaded"):
        Detector(Bundle.open(folder))


def test_missing_pillow_ends_the_run_before_it_begins(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error about the machine, not one for each image."""

    def missing() -> None:
        raise ImageError("Pillow is not installed")

    monkeypatch.setattr(detector_module, "require_pillow", missing)
    with pytest.raises(ImageError, match="Pillow is not installed"):
        detector.detect([])


@given(st.floats(allow_nan=False, width=32))
def test_scores_are_probabilities_and_symmetric(logit: float) -> None:
    score = score_from_logit(logit)
    assert 0 <= score <= 1
    assert (score > 0.5) == (logit > 1e-16) or abs(logit) < 1e-15
    assert score + score_from_logit(-logit) == pytest.approx(1, abs=1e-15)


def test_the_verdict_at_the_threshold_is_real() -> None:
    assert verdict_from_score(0.5, 0.5) == "real"
    assert verdict_from_score(math.nextafter(0.5, 1), 0.5) == "fake"
    assert Verdict(Path("a")) == (Path("a"), *[None] * 5)
