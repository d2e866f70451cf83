"""Fakes made anew by random up-sampling networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.calibration.batches import Augmentation, Batches, ImageStore
from qmdd.calibration.resynthesis import resynthesise
from qmdd.runtime.folder import Sample, scan


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(16, 70), st.integers(16, 70), st.integers(0, 2**32 - 1))
def test_any_image_keeps_its_size(height: int, width: int, seed: int) -> None:
    """Odd sides and sides that the factor does not divide, too."""
    made = resynthesise(_noise(height, width), np.random.default_rng(seed))
    assert made.shape == (height, width, 3)
    assert made.dtype == np.uint8
    assert made.flags.c_contiguous


def test_it_is_a_function_of_the_generator() -> None:
    image = _noise(48, 48)
    first, again = (resynthesise(image, np.random.default_rng(9)) for _ in range(2))
    other = resynthesise(image, np.random.default_rng(10))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_a_flat_image_stays_flat() -> None:
    """Nothing to standardise is no division by zero, whatever colour comes out."""
    flat = np.full((32, 32, 3), 200, dtype=np.uint8)
    for seed in range(20):
        made = resynthesise(flat, np.random.default_rng(seed)).astype(np.float64)
        assert made.std(axis=(0, 1)).max() < 20


def test_what_a_cell_held_is_gone() -> None:
    """Images that differ inside 2x2 cells only look alike to a network with that grid.

    A quarter of the random phases have it; away from the mirrored edges, pictures differ by the
    rounding of two averages at most then.
    """
    rng = np.random.default_rng(4)
    image = rng.integers(60, 180, (64, 64, 3))
    swing = rng.integers(20, 60, (32, 64, 3))
    other = image.copy()
    other[0::2] += swing
    other[1::2] -= swing
    same = 0
    for seed in range(40):
        first, second = (
            resynthesise(pixels.astype(np.uint8), np.random.default_rng(seed)).astype(np.int64)
            for pixels in (image, other)
        )
        same += int(np.abs(first - second)[24:-24, 24:-24].max()) <= 2
    assert 5 <= same < 40


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_only_fakes_are_made_anew(
    share: float, image_folder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at 1, none at 0; a real image is never touched."""
    samples: list[Sample] = scan(str(image_folder))
    marked: list[np.ndarray] = []

    def mark(image: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
        marked.append(image)
        return np.zeros_like(image)

    monkeypatch.setattr("qmdd.calibration.batches.resynthesise", mark)
    how = Augmentation(32, resynthesis=share)
    images, labels = Batches(ImageStore(samples), 12, how, seed=1).get(0)
    black = images.flatten(1).amax(1) == 0
    assert black.tolist() == [bool(label) and share == 1.0 for label in labels.tolist()]
    assert len(marked) == (6 if share else 0)


def test_without_it_training_sees_what_it_saw(image_folder: object) -> None:
    """The draw for re-synthesis comes last: other images of a batch do not move."""
    samples = scan(str(image_folder))
    plain, some = (
        Batches(ImageStore(samples), 12, Augmentation(32, resynthesis=share), seed=1).get(0)
        for share in (0.0, 0.5)
    )
    same = (plain[0] == some[0]).flatten(1).all(1)
    assert bool(same[plain[1] == 0].all())
    assert not bool(same.all())
