"""The images that calibration looks at: chosen, checked, and read anew for every pass.

Nothing but names, sizes and labels is kept, so memory does not grow with the number of images by
more than a line of text each. Images are cropped as a bundle crops them
(:mod:`qmdd.runtime.preprocess`): calibration sees what the device will see.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..runtime.contract import SIDES
from ..runtime.errors import ImageError
from ..runtime.folder import Sample, digest, scan
from ..runtime.images import require_pillow
from ..runtime.pixels import load_prepared
from ..runtime.scoring import Unusable
from .errors import CalibrationError

U8 = npt.NDArray[np.uint8]
Report = Callable[[str, int, int], None]

#: Pixels of a batch: 4 images of 256x256, more smaller ones. It is most of what memory holds.
BATCH_PIXELS = 4 * 256 * 256
#: Below this side an image alone in its batch leaves one number a channel in the last layers, and
#: one number has no variance.
LONE_SIDE = 64
#: How many unreadable files a message names.
_NAMED = 3


class Batch(NamedTuple):
    """Images of one size: uint8 ``[n, 3, H, W]``, and their labels float32 ``[n]``."""

    images: Tensor
    labels: Tensor


def choose(samples: Sequence[Sample], count: int | None, seed: int) -> list[Sample]:
    """A random subset of ``count`` samples, half of either class, in the order of ``samples``.

    A class with fewer than its half is taken whole and the other one fills up. ``None``, or a
    count that covers all, leaves all of them.
    """
    if count is None or count >= len(samples):
        return list(samples)
    rng = np.random.default_rng(seed)
    by_label = [[i for i, s in enumerate(samples) if s.label == label] for label in (0, 1)]
    fakes = min(count // 2, len(by_label[1]))
    reals = min(count - fakes, len(by_label[0]))
    fakes = min(count - reals, len(by_label[1]))
    kept: list[int] = []
    for rows, number in zip(by_label, (reals, fakes), strict=True):
        kept.extend(int(i) for i in rng.permutation(rows)[:number])
    return [samples[i] for i in sorted(kept)]


class CalibrationImages:
    """The usable images of a folder, each found readable once.

    Attributes:
        samples: in the order of their paths.
        skipped: the files left out, and what was wrong with each.
        digest: SHA-256 over the names and sizes of ``samples``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        count: int | None = None,
        seed: int = 0,
        skip_bad: bool = False,
        report: Report | None = None,
    ) -> None:
        """Choose and check.

        Args:
            root: folder in the layout of :mod:`qmdd.runtime.folder`.
            count: how many images to use, see :func:`choose`; all by default.
            seed: of the choice, and of the order in which images are batched.
            skip_bad: leave unreadable images out instead of refusing the folder.
            report: called with ``("checking images", done, total)``.

        Raises:
            DataError: the folder is empty, of another layout, or has one class only.
            CalibrationError: unreadable images, or none left of a class.
        """
        require_pillow()
        chosen = choose(scan(root), count, seed)
        self._shapes: list[tuple[int, int]] = []
        self.samples: list[Sample] = []
        self.skipped: list[Unusable] = []
        self.seed = seed
        for done, sample in enumerate(chosen, 1):
            try:
                self._shapes.append(load_prepared(sample.path, SIDES).shape[1:])
                self.samples.append(sample)
            except ImageError as error:
                self.skipped.append(Unusable(sample.path, str(error)))
            if report:
                report("checking images", done, len(chosen))
        if self.skipped and not skip_bad:
            raise CalibrationError(_refusal(root, self.skipped, len(chosen)))
        for label, name in enumerate(("real", "fake")):
            if not any(sample.label == label for sample in self.samples):
                raise CalibrationError(
                    f"{root}: no usable {name} image is left; both classes are needed"
                )
        self.digest = digest(root, self.samples)
        self._batches = self._plan()

    def __len__(self) -> int:
        return len(self.samples)

    def _plan(self) -> list[list[int]]:
        """Which samples make each batch: one size, both classes mixed, of nearly equal length."""
        order = np.random.default_rng([self.seed, 1]).permutation(len(self.samples))
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index in order:
            by_shape.setdefault(self._shapes[index], []).append(int(index))
        plan: list[list[int]] = []
        for shape, rows in sorted(by_shape.items()):
            if len(rows) == 1 and max(shape) < LONE_SIDE:
                raise CalibrationError(
                    f"{self.samples[rows[0]].path}: the only image of {shape[1]}x{shape[0]} "
                    "pixels, too small to take batch-norm statistics from alone; leave it out, or "
                    "add images of its size"
                )
            most = max(1, BATCH_PIXELS // (shape[0] * shape[1]))
            parts = np.array_split(np.asarray(rows), -(-len(rows) // most))
            plan.extend([int(i) for i in part] for part in parts)
        return plan

    def batches(self, what: str = "", report: Report | None = None) -> Iterator[Batch]:
        """Read all images once, batch after batch; the same batches on every call.

        Args:
            what: what is being done, for ``report``.
            report: called with ``(what, images done, total)`` before each batch and at the end.

        Raises:
            CalibrationError: an image is no longer what it was when it was checked.
        """
        done = 0
        for rows in self._batches:
            if report:
                report(what, done, len(self))
            images = np.stack([self._again(row) for row in rows])
            labels = [float(self.samples[row].label) for row in rows]
            yield Batch(torch.from_numpy(images), torch.tensor(labels))
            done += len(rows)
        if report:
            report(what, done, len(self))

    def _again(self, row: int) -> U8:
        path = self.samples[row].path
        try:
            image = load_prepared(path, SIDES)
        except ImageError as error:
            raise CalibrationError(f"{error} (it was readable before)") from error
        if image.shape[1:] != self._shapes[row]:
            raise CalibrationError(f"{path}: changed while it was used; start again")
        return image


def _refusal(root: str | os.PathLike[str], bad: list[Unusable], total: int) -> str:
    count = "1 image" if len(bad) == 1 else f"{len(bad):,} images"
    named = "; ".join(item.reason for item in bad[:_NAMED])
    more = f"; and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
    return (
        f"{root}: {count} of {total:,} cannot be used ({named}{more}); remove what cannot be used, "
        "or leave it out with --skip-bad"
    )


__all__ = ["BATCH_PIXELS", "Batch", "CalibrationImages", "choose"]
