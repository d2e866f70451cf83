"""Training batches: shuffled, cropped, flipped, all of it a function of (seed, epoch, index).

Nothing here has a state of its own, so a run that is killed and resumed draws what the unbroken
run would have drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..runtime.errors import DataError, ImageError
from ..runtime.folder import Sample
from ..runtime.images import load_rgb
from .resynthesis import resynthesise

Rgb = npt.NDArray[np.uint8]


class Augmentation(NamedTuple):
    """How a training image is changed.

    Attributes:
        crop: side of the square in pixels.
        even: crop only at even offsets.
        turn: quarter turns beside flips.
        resynthesis: share of the fakes that are made anew, see :mod:`.resynthesis`.
    """

    crop: int
    even: bool = False
    turn: bool = True
    resynthesis: float = 0.0


class ImageStore:
    """Decoded images, kept in memory up to a budget in bytes, decoded again beyond it."""

    def __init__(self, samples: list[Sample], budget: int = 2 << 30) -> None:
        self.samples = samples
        self._budget = budget
        self._kept: dict[int, Rgb] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def pixels(self, index: int) -> Rgb:
        """uint8 ``[H, W, 3]`` of sample ``index``; :class:`DataError` if it cannot be read."""
        if index in self._kept:
            return self._kept[index]
        try:
            image = load_rgb(self.samples[index].path)
        except ImageError as error:
            raise DataError(f"{error}; remove it from the training folder") from error
        if image.nbytes <= self._budget:
            self._budget -= image.nbytes
            self._kept[index] = image
        return image


def augment(image: Rgb, how: Augmentation, rng: np.random.Generator) -> Rgb:
    """A random crop, flipped and turned at random: uint8 ``[crop, crop, 3]``.

    Smaller images are mirrored at their edge until the crop fits.
    """
    side = how.crop
    height, width = image.shape[:2]
    if height < side or width < side:
        grow = ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0))
        image = np.pad(image, grow, mode="symmetric")
        height, width = image.shape[:2]
    grid = 2 if how.even else 1
    top = int(rng.integers(0, (height - side) // grid + 1)) * grid
    left = int(rng.integers(0, (width - side) // grid + 1)) * grid
    patch = image[top : top + side, left : left + side]
    if rng.integers(2):
        patch = patch[:, ::-1]
    if how.turn:
        patch = np.rot90(patch, int(rng.integers(4)))
    return np.ascontiguousarray(patch)


class Batches:
    """The batches of a stage, by their number."""

    def __init__(self, store: ImageStore, batch: int, how: Augmentation, seed: int) -> None:
        self.store, self.batch, self.how, self.seed = store, batch, how, seed
        self.per_epoch = len(store) // batch
        if self.per_epoch == 0:
            raise DataError(
                f"{len(store)} images are fewer than one batch of {batch}; lower the batch size"
            )

    def get(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch ``number`` (counted over epochs): uint8 ``[B, 3, crop, crop]``, float32 ``[B]``."""
        epoch, position = divmod(number, self.per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.store))
        chosen = order[position * self.batch : (position + 1) * self.batch]
        images, labels = [], []
        for index in chosen:
            rng = np.random.default_rng([self.seed, epoch, int(index)])
            label = self.store.samples[int(index)].label
            image = augment(self.store.pixels(int(index)), self.how, rng)
            if label and rng.random() < self.how.resynthesis:
                image = resynthesise(image, rng)
            images.append(image)
            labels.append(label)
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return stacked, torch.tensor(labels, dtype=torch.float32)
