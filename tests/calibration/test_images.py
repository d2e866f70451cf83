"""The images that calibration looks at: chosen, checked, batched, and what a folder lacks."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.images import BATCH_PIXELS, CalibrationImages, choose
from qmdd.runtime.errors import DataError
from qmdd.runtime.folder import Sample


@pytest.fixture
def folder(image_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(image_folder, tmp_path / "data"))


@given(
    reals=st.integers(1, 30),
    fakes=st.integers(1, 30),
    count=st.integers(2, 70),
    seed=st.integers(0, 5),
)
def test_half_of_either_class_is_chosen(reals: int, fakes: int, count: int, seed: int) -> None:
    """As many as asked for, no image twice, in order; a small class whole, the other fills up."""
    samples = [Sample(Path(f"{i:03}"), int(i >= reals), "g") for i in range(reals + fakes)]
    found = choose(samples, count, seed)
    assert found == choose(samples, count, seed)
    assert len(found) == len(set(found)) == min(count, len(samples))
    assert found == sorted(found)
    per_class = Counter(sample.label for sample in found)
    assert per_class[0] >= min(reals, count // 2)
    assert per_class[1] >= min(fakes, count // 2)


def test_another_seed_chooses_others() -> None:
    samples = [Sample(Path(f"{i:03}"), i % 2, "g") for i in range(100)]
    assert choose(samples, 20, 0) != choose(samples, 20, 1)


def test_every_pass_reads_the_same_batches(image_folder: Path) -> None:
    """Each image once, with its label; another order under another seed; pixels as they are."""
    found = CalibrationImages(image_folder, seed=3)
    first, again = list(found.batches()), list(found.batches())
    assert sum(len(batch.images) for batch in first) == len(found) == 12
    for batch, same in zip(first, again, strict=True):
        assert torch.equal(batch.images, same.images)
        assert torch.equal(batch.labels, same.labels)
    other = next(iter(CalibrationImages(image_folder, seed=4).batches()))
    assert not torch.equal(first[0].labels, other.labels) or not torch.equal(
        first[0].images, other.images
    )
    pixels = {tuple(image.flatten().tolist()) for batch in first for image in batch.images}
    wanted = {
        tuple(np.array(Image.open(sample.path)).transpose(2, 0, 1).flatten().tolist())
        for sample in found.samples
    }
    assert pixels == wanted


def test_a_batch_holds_images_of_one_size(folder: Path) -> None:
    """Two large images in one batch, never more pixels than a batch has; sides as a bundle's."""
    for name, side in (("big1", 601), ("big2", 640)):
        large = np.zeros((side, side, 3), dtype=np.uint8)
        Image.fromarray(large).save(folder / "alpha" / "0_real" / f"{name}.png")
    batches = [batch.images for batch in CalibrationImages(folder).batches()]
    assert sorted({tuple(images.shape[2:]) for images in batches}) == [(64, 64), (512, 512)]
    for images in batches:
        assert images.shape[0] * images.shape[2] * images.shape[3] <= BATCH_PIXELS


def test_bad_images_are_counted_and_named(folder: Path) -> None:
    """Refused, three named and the rest counted; left out where that is asked for."""
    for index in range(4):
        (folder / "alpha" / "0_real" / f"bad{index}.png").write_text("no image")
    Image.new("RGB", (8, 90)).save(folder / "alpha" / "1_fake" / "small.png")
    with pytest.raises(CalibrationError) as caught:
        CalibrationImages(folder)
    text = str(caught.value)
    assert "5 images of 17 cannot be used" in text
    assert "bad0.png" in text
    assert "and 2 more" in text
    assert text.endswith("leave it out with --skip-bad")
    found = CalibrationImages(folder, skip_bad=True)
    assert len(found) == 12
    assert [path.name for path, _ in found.skipped] == [
        *(f"bad{index}.png" for index in range(4)),
        "small.png",
    ]
    assert all(str(path) in reason for path, reason in found.skipped)
    assert "8x90" in found.skipped[-1].reason


def test_the_digest_is_that_of_what_is_used(folder: Path) -> None:
    """A bad image that was left out does not count, another good one does."""
    before = CalibrationImages(folder).digest
    (folder / "alpha" / "0_real" / "bad.png").write_text("no image")
    assert CalibrationImages(folder, skip_bad=True).digest == before
    Image.new("RGB", (64, 64)).save(folder / "alpha" / "0_real" / "new.png")
    assert CalibrationImages(folder, skip_bad=True).digest != before


def test_one_class_is_refused(folder: Path) -> None:
    """Whether from the start, or because nothing of the other one can be read."""
    for path in folder.rglob("1_fake/*.png"):
        path.write_text("no image")
    with pytest.raises(CalibrationError, match="no usable fake image is left; both classes"):
        CalibrationImages(folder, skip_bad=True)
    for path in list(folder.rglob("1_fake")):
        shutil.rmtree(path)
    with pytest.raises(DataError, match="no image in any 1_fake folder"):
        CalibrationImages(folder)


def test_an_empty_folder_and_another_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in the layout"):
        CalibrationImages(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no images in the layout"):
        CalibrationImages(tmp_path)


def test_an_image_that_changes_while_it_is_used(folder: Path) -> None:
    """Another size, or no image any more: said, not computed with."""
    found = CalibrationImages(folder)
    path = found.samples[0].path
    Image.new("RGB", (96, 64)).save(path)
    with pytest.raises(CalibrationError, match="changed while it was used"):
        list(found.batches())
    path.write_text("no image")
    with pytest.raises(CalibrationError, match="it was readable before"):
        list(found.batches())


def test_a_small_image_alone_has_no_statistics(folder: Path) -> None:
    """One number a channel in the last layer has no variance; two images do."""
    for index in range(2):
        Image.new("RGB", (32, 48)).save(folder / "alpha" / "0_real" / f"small{index}.png")
        if index == 0:
            with pytest.raises(CalibrationError, match="the only image of 32x48 pixels"):
                CalibrationImages(folder)
    assert len(CalibrationImages(folder)) == 14


def test_what_is_done_is_reported(image_folder: Path) -> None:
    """From nothing to all, of checking and of each pass."""
    told: list[tuple[str, int, int]] = []
    found = CalibrationImages(image_folder, report=lambda *what: told.append(what))
    assert told[-1] == ("checking images", 12, 12)
    list(found.batches("observing", lambda *what: told.append(what)))
    assert told[-2:] == [("observing", 0, 12), ("observing", 12, 12)]
