"""Batches: a function of (seed, number) alone, and the augmentation in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qmdd.calibration.batches import Augmentation, Batches, ImageStore, augment
from qmdd.runtime.errors import DataError
from qmdd.runtime.folder import Sample, scan

HOW = Augmentation(32)


def _batches(folder: Path, batch: int = 4, seed: int = 1, how: Augmentation = HOW) -> Batches:
    return Batches(ImageStore(scan(folder)), batch, how, seed)


def _counted(height: int, width: int) -> np.ndarray:
    """Every pixel different: its row in channel 0, its column in channel 1."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)[None, :]
    return image


def test_shapes_and_types(image_folder: Path) -> None:
    """uint8 ``[B, 3, crop, crop]`` and float32 labels ``[B]``, in step with the images."""
    batches = _batches(image_folder)
    assert batches.per_epoch == 3
    images, labels = batches.get(0)
    assert (images.dtype, images.shape) == (torch.uint8, (4, 3, 32, 32))
    assert (labels.dtype, labels.shape) == (torch.float32, (4,))


def test_a_batch_depends_on_its_number_only(image_folder: Path) -> None:
    """Any order of calls, a fresh object, a store that keeps nothing: the same pixels.

    That is what lets a killed run go on as the unbroken one would have.
    """
    numbers = range(7)  # over two epochs
    first = [_batches(image_folder).get(n) for n in numbers]
    shared = _batches(image_folder)
    backwards = [shared.get(n) for n in reversed(numbers)][::-1]
    forgetful = Batches(ImageStore(scan(image_folder), budget=0), 4, HOW, 1)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the global generators must not matter
    third = [forgetful.get(n) for n in numbers]
    for a, b, c in zip(first, backwards, third, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[0], c[0])
        assert torch.equal(a[1], b[1])
        assert torch.equal(a[1], c[1])


def test_seeds_and_epochs_differ(image_folder: Path) -> None:
    """Another seed, or the same position an epoch later, draws other pixels."""
    batches = _batches(image_folder)
    assert not torch.equal(batches.get(0)[0], _batches(image_folder, seed=2).get(0)[0])
    assert not torch.equal(batches.get(0)[0], batches.get(3)[0])


def test_an_image_is_cropped_anew_in_every_epoch(image_folder: Path) -> None:
    """One image, one batch an epoch: eight epochs give eight different crops."""
    batches = Batches(ImageStore(scan(image_folder)[:1]), 1, HOW, 1)
    crops = {batches.get(epoch)[0].numpy().tobytes() for epoch in range(8)}
    assert len(crops) == 8


def test_an_epoch_sees_every_image_once(image_folder: Path) -> None:
    """With whole images and neither flip nor turn visible: sorted by their sums."""
    batches = _batches(image_folder, how=Augmentation(64))
    store = batches.store
    want = sorted(int(store.pixels(i).astype(np.int64).sum()) for i in range(12))
    labels = []
    for epoch in range(2):
        sums = []
        for position in range(3):
            images, batch_labels = batches.get(3 * epoch + position)
            sums += images.long().sum(dim=(1, 2, 3)).tolist()
            labels += batch_labels.tolist()
        assert sorted(sums) == want
    assert labels.count(1.0) == labels.count(0.0) == 12


def test_images_left_over_are_dropped_but_shuffled_in_later(image_folder: Path) -> None:
    """12 images in batches of 5: two batches an epoch, every image met in some epoch."""
    batches = _batches(image_folder, batch=5, how=Augmentation(64))
    assert batches.per_epoch == 2
    sums = {s for n in range(12) for s in batches.get(n)[0].long().sum(dim=(1, 2, 3)).tolist()}
    assert len(sums) == 12


def test_fewer_images_than_a_batch(image_folder: Path) -> None:
    """Both numbers and what to do."""
    with pytest.raises(DataError, match="12 images are fewer than one batch of 13; lower"):
        _batches(image_folder, batch=13)


@pytest.mark.parametrize(("turn", "poses"), [(True, 8), (False, 2)])
def test_augmentation_covers_flips_and_turns(turn: bool, poses: int) -> None:
    """All eight poses of a square with turns, two without; each is one of the image's own."""
    image = _counted(32, 32)
    turned = [np.rot90(flip, k) for flip in (image, image[:, ::-1]) for k in range(4)]
    all_poses = {pose.tobytes() for pose in turned}
    allowed = all_poses if turn else {image.tobytes(), image[:, ::-1].tobytes()}
    rng = np.random.default_rng(0)
    seen = {augment(image, Augmentation(32, turn=turn), rng).tobytes() for _ in range(200)}
    assert seen == allowed
    assert len(seen) == poses


@pytest.mark.parametrize("even", [False, True])
def test_crops_cover_every_offset_of_their_grid(even: bool) -> None:
    """All offsets that fit, the last included; only even ones where NPR's cells shall stay."""
    image = _counted(38, 40)
    rng = np.random.default_rng(0)
    tops, lefts = set(), set()
    for _ in range(600):
        patch = augment(image, Augmentation(32, even=even, turn=False), rng)
        assert patch.shape == (32, 32, 3)
        tops.add(int(patch[..., 0].min()))
        lefts.add(int(patch[..., 1].min()))
    grid = 2 if even else 1
    assert tops == set(range(0, 7, grid))
    assert lefts == set(range(0, 9, grid))


@pytest.mark.parametrize(("height", "width"), [(20, 50), (50, 20), (7, 9), (1, 1)])
def test_small_images_are_mirrored_until_the_crop_fits(height: int, width: int) -> None:
    """Only the image's own pixels, each edge repeated; however small the image is."""
    image = _counted(height, width)
    rng = np.random.default_rng(3)
    patch = augment(image, Augmentation(32, turn=False), rng)
    assert patch.shape == (32, 32, 3)
    assert patch[..., 0].max() < height
    assert patch[..., 1].max() < width
    if height == 20:  # rows 0..19 then 19..8
        assert patch[:, 0, 0].tolist() == [*range(20), *range(19, 7, -1)]


def test_pixels_are_contiguous_and_writable(image_folder: Path) -> None:
    """A flipped or turned view would not go into a tensor."""
    rng = np.random.default_rng(0)
    store = ImageStore(scan(image_folder))
    for _ in range(16):
        patch = augment(store.pixels(0), HOW, rng)
        assert patch.flags.c_contiguous
        torch.from_numpy(patch)


def test_the_store_keeps_images_up_to_its_budget(image_folder: Path, tmp_path: Path) -> None:
    """Within the budget an image is read once; beyond it, again each time."""
    samples = scan(image_folder)
    copies = []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        path.write_bytes(samples[index].path.read_bytes())
        copies.append(Sample(path, 0, "copy"))
    store = ImageStore(copies, budget=2 * 64 * 64 * 3)
    first = [store.pixels(i).copy() for i in range(3)]
    for sample in copies:
        sample.path.unlink()
    for index in range(2):
        np.testing.assert_array_equal(store.pixels(index), first[index])
    with pytest.raises(DataError, match=r"2\.png"):
        store.pixels(2)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    """With what to do about it."""
    broken = tmp_path / "gan" / "0_real" / "broken.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a picture")
    store = ImageStore([Sample(broken, 0, "gan")])
    with pytest.raises(DataError, match=r"broken\.png: .*remove it from the training folder"):
        store.pixels(0)
