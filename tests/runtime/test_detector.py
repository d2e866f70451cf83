"""From files to verdicts."""

from __future__ import annotations

import itertools
import math
import threading
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
from qmdd.runtime import pipeline, sessions
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.detector import Detector, Verdict, score_from_logit, verdict_from_score
from qmdd.runtime.errors import BundleError, ImageError, SessionError
from qmdd.runtime.images import load_rgb
from qmdd.runtime.inputs import find_inputs
from qmdd.runtime.pixels import load_prepared
from qmdd.runtime.session import OnnxSession
from qmdd.runtime.verdicts import Clip, FramePlace

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


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_batches_and_threads_change_nothing(
    make_bundle: BundleFactory, tmp_path: Path, threads: int, batch: int
) -> None:
    """Sizes are mixed, and every seventh file is none."""
    paths = []
    for index in range(30):
        size = (40 + 2 * (index % 3), 40)
        paths.append(_image(tmp_path, f"{index:02}.png", 7 * index, size))
        if not index % 7:
            paths[-1].write_bytes(b"no image")
    plain = [
        Verdict(path, error=error) if error else Verdict(path, score, word)
        for path, score, word, error, *_ in Detector.open(make_bundle(), threads=1).detect(paths)
    ]
    assert sum(verdict.error is not None for verdict in plain) == 5
    found = Detector.open(make_bundle(name="other"), threads=threads).detect(paths, batch=batch)
    assert list(found) == plain


def test_a_runtime_for_one_thread_at_a_time(
    make_bundle: BundleFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session computes with all threads, and never two runs at once."""
    monkeypatch.setattr(sessions, "_ONE_AT_A_TIME", ("onnxruntime",))
    monkeypatch.setattr(OnnxSession, "concurrent", False)
    detector = Detector.open(make_bundle(), threads=2)
    assert detector._session._threads == 2
    inside, real = threading.Lock(), detector._session.logits

    def logits(images: U8) -> npt.NDArray[np.float32]:
        assert inside.acquire(blocking=False)
        found = real(images)
        inside.release()
        return found

    monkeypatch.setattr(detector._session, "logits", logits)
    paths = [_image(tmp_path, f"{level}.png", level) for level in range(0, 240, 12)]
    found = [verdict.score for verdict in detector.detect(paths)]
    assert found == list(detector.score(paths))
    assert found[0] == detector.score_image(load_rgb(paths[0]))


def test_one_image_with_all_threads(make_bundle: BundleFactory) -> None:
    """Another session, opened when it is first needed, the same score."""
    detector = Detector.open(make_bundle(), threads=2)
    assert detector._session._threads == 1
    image = np.full((40, 40, 3), 160, dtype=np.uint8)
    assert detector.score_image(image) == detector.score(image)
    assert detector._whole._threads == 2
    assert detector._whole is detector._whole


def test_score_takes_files_arrays_and_pillow_images(detector: Detector, tmp_path: Path) -> None:
    path = _image(tmp_path, "a.png", 160)
    array = np.full((40, 40, 3), 160, dtype=np.uint8)
    with Image.open(path) as lazy:
        images = [path, str(path), array, Image.fromarray(array), lazy]
        want = pytest.approx(score_from_logit(1.0), rel=1e-15)
        assert list(detector.score(images)) == [want] * 5
    for image in images[:4]:
        assert detector.score(image) == want
    assert list(detector.score(np.stack([array, array]))) == [want] * 2
    assert list(detector.score([])) == []
    endless = detector.score(itertools.repeat(array))
    assert list(itertools.islice(endless, 3)) == [want] * 3


def test_score_says_which_image_cannot_be_used(detector: Detector, tmp_path: Path) -> None:
    good = np.zeros((40, 40, 3), dtype=np.uint8)
    cut = tmp_path / "cut.png"
    Image.effect_noise((99, 99), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    with Image.open(cut) as damaged:
        cases: list[tuple[Any, str]] = [
            (good[:8], "image 1: 40x8 pixels is too small"),
            (good.astype(np.float32), "image 1: an image must be uint8"),
            (tmp_path / "none.png", rf"^{tmp_path}/none.png: no such file"),
            (damaged, "image 1: damaged image"),
            (3, "image 1: an image is a path, an array .* or an image of Pillow's; this is int"),
        ]
        for bad, message in cases:
            scores = detector.score([good, bad, good])
            assert next(scores) < 0.5
            with pytest.raises(ImageError, match=message):
                next(scores)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        detector.score("none.png")


def test_a_video_is_the_mean_of_its_frames(
    detector: Detector, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Its verdict is that of the mean; frames are told one by one where that is asked for."""
    levels = [64, 255, 160, 250, 128, 240]
    path = make_video(tmp_path / "a.mkv", levels)
    still = _image(tmp_path, "b.png", 64)
    found = list(detector.detect([path, still, path], every=2, frames=True))
    assert [verdict.path for verdict in found] == [*[path] * 4, still, *[path] * 4]
    frames, clip = found[:3], found[3]
    assert [v.frame for v in frames] == [
        FramePlace(0, 0.0),
        FramePlace(2, 0.08),
        FramePlace(4, 0.16),
    ]
    scores = [verdict.score for verdict in frames]
    assert scores == pytest.approx([score_from_logit(x) for x in (-2, 1, 0)], abs=0.02)
    assert clip.score == pytest.approx(sum(score or 0 for score in scores) / 3, rel=1e-15)
    assert clip.verdict == "real"
    assert clip.clip is not None
    assert clip.clip == Clip(3, sum(v.verdict == "fake" for v in frames), 6)
    assert found[5:] == found[:4]
    assert list(detector.detect([path], every=2)) == [clip]
    assert list(detector.detect([path], every=2, batch=4)) == [clip]


def test_broken_frames_are_counted_in_the_verdict(
    detector: Detector, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video(tmp_path / "a.avi", [255] * 6, codec="mjpeg", broken=[1, 3])
    (verdict,) = detector.detect([path], every=1)
    assert verdict.verdict == "fake"
    assert verdict.clip is not None
    assert verdict.clip[:4] == (4, 4, 4, 2)
    assert str(verdict.clip.first_broken).startswith("after frame 1 (")


def test_videos_that_have_no_verdict(
    detector: Detector, make_video: Callable[..., Path], audio_file: Path, tmp_path: Path
) -> None:
    small = make_video(tmp_path / "small.mkv", [0, 0], size=(16, 64))
    good = make_video(tmp_path / "good.mkv", [255, 255])
    errors = [verdict.error for verdict in detector.detect([small, audio_file, good], every=1)]
    assert str(errors[0]).startswith(
        f"{small}: no frame that can be used: frame 0: 16x64 pixels is too small"
    )
    assert str(errors[1]).startswith(f"{audio_file}: no video stream")
    assert errors[2] is None


def test_memory_does_not_grow_with_a_video(
    detector: Detector,
    make_video: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frames are taken when a thread is free, not ahead of it."""
    path = make_video(tmp_path / "a.mkv", range(0, 250, 5))
    alive, most = [], 0
    real = pipeline.prepare

    def spy(rgb: U8, **sides: int) -> U8:
        nonlocal most
        pixels = real(rgb, **sides)
        alive.append(weakref.ref(pixels))
        most = max(most, sum(ref() is not None for ref in alive))
        return pixels

    monkeypatch.setattr(pipeline, "prepare", spy)
    (verdict,) = detector.detect([path], every=1)
    assert verdict.clip is not None
    assert verdict.clip.frames == len(alive) == 50
    assert most <= 2


@pytest.mark.parametrize("options", [{"batch": 0}, {"every": 0}])
def test_options_that_make_no_sense(detector: Detector, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        detector.detect([], **options)


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


def test_the_example_in_the_documents(
    make_bundle: BundleFactory,
    make_video: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "detect.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    make_bundle()
    _image(tmp_path, "photo.jpg", 255)
    make_video(tmp_path / "clip.mp4", [0, 0], codec="mpeg4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    _image(tmp_path / "photos", "a.png", 255)
    _image(tmp_path / "photos", "b.png", 128)
    exec(compile(example, "detect.md", "exec"), {})  # noqa: S102 - it is ours
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert len(set(lines[0].split())) == 1
    assert lines[0].startswith("0.98")
    assert float(lines[2]) == 0.5
    assert lines[3].startswith("photo.jpg 0.98")
    assert lines[4].startswith("clip.mp4 0.0")
    assert lines[4].endswith("real None")


def test_a_folder_that_changes_while_it_is_scored(detector: Detector, tmp_path: Path) -> None:
    """What vanishes is named, what appears late is left out or scored; nothing crashes."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(40):
        _image(folder, f"{index:02}.png", 255)
    found = detector.detect(find_inputs([str(folder)]))
    first = next(found)
    for index in range(30, 40):
        (folder / f"{index}.png").unlink()
    _image(folder, "99.png", 255)
    verdicts = {verdict.path.name: verdict for verdict in (first, *found)}
    assert [verdicts[f"{index:02}.png"].verdict for index in range(30)] == ["fake"] * 30
    gone = folder / "35.png"
    assert verdicts["35.png"].error == f"{gone}: no such file"
