"""Scoring a folder with a bundle: every image once, unusable ones counted and named."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qmdd.runtime import pipeline
from qmdd.runtime.errors import BundleError, DataError
from qmdd.runtime.evaluate import evaluate
from qmdd.runtime.folder import scan
from qmdd.runtime.known_sets import Seen
from qmdd.runtime.scoring import (
    Subject,
    refuse_unusable,
    score_samples,
    scores_csv,
    subject_from_bundle,
)

SIDES = {"min_side": 32, "multiple": 2, "max_side": 64}


@pytest.fixture
def subject(make_bundle: Callable[..., Path]) -> Subject:
    """The tiny bundle: its logit is ``(mean of the pixels - 128) / 32``."""
    return subject_from_bundle(make_bundle(), threads=1)


@pytest.fixture
def folder(image_folder: Path, tmp_path: Path) -> Path:
    """A copy of the images that a test may damage."""
    return Path(shutil.copytree(image_folder, tmp_path / "images"))


def _spoil(folder: Path) -> list[Path]:
    """Three unusable images: no image at all, too small, and (its header is fine) cut short."""
    bad = [folder / "alpha" / name for name in ("0_real/0.png", "1_fake/1.png", "1_fake/2.png")]
    bad[0].write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(bad[1])
    bad[2].write_bytes(bad[2].read_bytes()[:2000])
    return bad


def test_scores_are_those_of_the_model(subject: Subject, image_folder: Path) -> None:
    samples = scan(image_folder)
    told: list[tuple[str, int, int]] = []
    scored = score_samples(samples, subject, report=lambda *what: told.append(what))
    assert scored.samples == samples
    assert scored.skipped == []
    for sample, score in zip(samples, scored.scores, strict=True):
        with Image.open(sample.path) as image:
            mean = float(np.asarray(image, dtype=np.float64).mean())
        assert score == pytest.approx(1 / (1 + math.exp(-(mean - 128) / 32)), abs=1e-5)
    assert told[-1] == ("scoring", 12, 12)
    assert subject.kind == "bundle"
    assert subject.sides == SIDES


def test_an_image_of_several_generators_is_scored_once(
    subject: Subject, image_folder: Path
) -> None:
    """As the shared real images of UniversalFakeDetect are."""
    samples = scan(image_folder)
    doubled = [*samples, *(s._replace(generator="other") for s in samples if not s.label)]
    asked: list[Path] = []

    def detect(paths: Any) -> Any:
        for path in paths:
            asked.append(path)
            yield next(iter(subject.detect([path])))

    scored = score_samples(doubled, subject._replace(detect=detect))
    assert len(asked) == len(set(asked)) == 12
    assert len(scored.samples) == len(scored.scores) == 18
    by_path = dict(zip((s.path for s in scored.samples), scored.scores, strict=True))
    assert [by_path[s.path] for s in scored.samples] == list(scored.scores)


def test_unusable_images_end_the_run_before_the_first_score(subject: Subject, folder: Path) -> None:
    """The count is that of all three, also of the one that only decoding shows."""
    bad = _spoil(folder)

    def never(_paths: Any) -> Any:
        raise AssertionError("scored although the headers show unusable images")

    samples = scan(folder)
    with pytest.raises(DataError) as caught:
        score_samples(samples, subject._replace(detect=never))
    text = str(caught.value)
    assert text.startswith(f"3 images of 12 cannot be used, the first: {bad[0]}: not an image")
    assert text.endswith("--skip-bad")
    with pytest.raises(DataError, match="3 images of 12"):
        refuse_unusable(samples, SIDES)


def test_a_cut_off_image_ends_the_run_where_it_is_met(subject: Subject, folder: Path) -> None:
    """Its header is fine. What comes after it is decoded for the count, and not scored."""
    _spoil(folder)
    shutil.copy(folder / "alpha/0_real/1.png", folder / "alpha/0_real/0.png")
    shutil.copy(folder / "alpha/0_real/1.png", folder / "alpha/1_fake/1.png")
    late = folder / "beta/cat/1_fake/2.png"
    late.write_bytes(late.read_bytes()[:2000])
    samples = scan(folder)
    refuse_unusable(samples, SIDES)
    with pytest.raises(DataError, match=r"2 images of 12 .*alpha/1_fake/2\.png: cannot be read"):
        score_samples(samples, subject)
    late.unlink()
    with pytest.raises(DataError, match="1 image of 11 cannot be used"):
        score_samples(scan(folder), subject)


def test_unusable_images_are_left_out_counted_and_named(subject: Subject, folder: Path) -> None:
    clean = score_samples(scan(folder), subject)
    bad = _spoil(folder)
    scored = score_samples(scan(folder), subject, skip_bad=True)
    assert [item.path for item in scored.skipped] == sorted(bad)
    assert all(str(item.path) in item.reason for item in scored.skipped)
    want = {s.path: score for s, score in zip(clean.samples, clean.scores, strict=True)}
    assert len(scored.samples) == 9
    assert scored.lost == ()
    for sample, score in zip(scored.samples, scored.scores, strict=True):
        assert sample.path not in bad
        assert score == want[sample.path]


def test_a_generator_of_which_nothing_is_left(subject: Subject, folder: Path) -> None:
    """It is named, and the evaluation says so."""
    for path in folder.glob("beta/**/*.png"):
        path.write_bytes(b"no image")
    scored = score_samples(scan(folder), subject, skip_bad=True)
    assert scored.lost == ("beta",)
    found = evaluate(scored, folder, threshold=0.5, seen=Seen(None, "unknown"))
    assert [row.generator for row in found.rows] == ["alpha"]
    assert "beta has no image that can be used: it is left out" in found.notes


def test_a_class_of_which_nothing_is_left(subject: Subject, folder: Path) -> None:
    for path in folder.glob("**/0_real/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no usable image of one class is left; .*alpha"):
        score_samples(scan(folder), subject, skip_bad=True)


def test_pixels_are_held_one_image_a_thread(
    subject: Subject, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every array of pixels is gone before the next is read: no store grows with the folder."""
    import weakref

    alive: list[weakref.ref[Any]] = []
    most = 0

    load = pipeline.load_prepared

    def spy(path: Path, sides: dict[str, int]) -> Any:
        nonlocal most
        pixels = load(path, sides)
        alive.append(weakref.ref(pixels))
        most = max(most, sum(ref() is not None for ref in alive))
        return pixels

    monkeypatch.setattr(pipeline, "load_prepared", spy)
    score_samples(scan(folder), subject)
    assert len(alive) == 12
    assert most == 1


def test_scores_as_csv(subject: Subject, image_folder: Path) -> None:
    scored = score_samples(scan(image_folder), subject)
    rows = list(csv.DictReader(io.StringIO(scores_csv(scored).decode())))
    assert [row["path"] for row in rows] == [str(s.path) for s in scored.samples]
    assert [int(row["label"]) for row in rows] == [s.label for s in scored.samples]
    assert [row["generator"] for row in rows] == [s.generator for s in scored.samples]
    assert [float(row["score"]) for row in rows] == list(scored.scores)


def test_the_record_of_a_bundle(
    make_bundle: Callable[..., Path], tiny_manifest: Callable[[], dict[str, Any]]
) -> None:
    manifest = tiny_manifest()
    for index, (source, want) in enumerate(
        [(None, None), ("text", None), ({}, None), ({"generators": ["a"]}, ("a",))]
    ):
        bundle = make_bundle({**manifest, "source": source}, name=f"b{index}")
        assert subject_from_bundle(bundle, threads=1).trained_on == want
    bundle = make_bundle({**manifest, "source": {"generators": [1]}}, name="bad")
    with pytest.raises(BundleError, match=r"bad: its record .* is not a list of names; export"):
        subject_from_bundle(bundle, threads=1)
