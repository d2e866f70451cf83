"""The field's folder layout: ``<generator>/0_real`` and ``<generator>/1_fake``.

ForenSynths also nests one level (``progan/airplane/0_real``); the generator is the first folder.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .errors import DataError
from .images import SUFFIXES, find_images
from .known_sets import SHARED_REALS, is_known

#: Folder names of the classes, by label.
CLASS_FOLDERS = ("0_real", "1_fake")
#: Folders of a data set that hold generators, and are none.
SPLITS = frozenset({"train", "val", "test"})


class Sample(NamedTuple):
    """One image: its file, its label (0 real, 1 fake), the generator whose folder holds it."""

    path: Path
    label: int
    generator: str


def scan(root: str | os.PathLike[str], *, shared_reals: bool = False) -> list[Sample]:
    """All samples below ``root``, ordered by path.

    The generator is the first folder below ``root``; a known set may also lie deeper
    (``diffusion_datasets/guided``): a folder that has a known generator's name is that generator.

    Args:
        shared_reals: give UniversalFakeDetect's folders of real images to the generators that are
            measured against them: an image is then a sample of each.

    Raises:
        DataError: no such folder, no image in the layout, a class without images, a folder that may
            not be listed, splits in place of generators, or two folders of one generator.
    """
    base = Path(root)
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; --data takes <generator>/0_real and 1_fake in it")
    samples, others = [], []
    places: dict[str, Path] = {}
    for path in find_images([base]):
        if path.suffix.lower() not in SUFFIXES and path.is_dir():
            raise DataError(f"{path}: this folder may not be listed; check its permissions")
        folders = path.relative_to(base).parts[:-1]
        # The deepest class folder counts.
        found = [(at, name) for at, name in enumerate(folders) if name in CLASS_FOLDERS]
        if not found:
            others.append(path)
            continue
        depth, name = found[-1]
        generator, place = _generator(base, folders[:depth])
        if places.setdefault(generator, place) != place:
            raise DataError(
                f"{base}: {generator} lies in {places[generator]} and in {place}; give one of the "
                "folders that hold them"
            )
        samples.append(Sample(path, CLASS_FOLDERS.index(name), generator))
    if not samples:
        where = f"; {others[0]} is in neither" if others else ""
        raise DataError(
            f"{base}: no images in the layout <generator>/0_real/*.png, <generator>/1_fake/*.png"
            f"{where}"
        )
    per_class = Counter(sample.label for sample in samples)
    for label, name in enumerate(CLASS_FOLDERS):
        if not per_class[label]:
            raise DataError(f"{base}: no image in any {name} folder; both classes are needed")
    if shared_reals:
        samples = _with_shared_reals(samples)
    return sorted(samples, key=lambda sample: (sample.path, sample.generator))


def find_outside(root: str | os.PathLike[str]) -> list[Path]:
    """Images below ``root`` in no class folder, by path: :func:`scan` leaves them out."""
    base = Path(root)
    return sorted(
        path
        for path in find_images([base])
        if not set(CLASS_FOLDERS) & set(path.relative_to(base).parts[:-1])
    )


def _generator(base: Path, folders: tuple[str, ...]) -> tuple[str, Path]:
    """The generator whose class folder lies below ``folders``, and its own folder."""
    if not folders:
        return base.resolve().name, base
    if len(folders) > 1 and folders[0].lower() in SPLITS:
        raise DataError(
            f"{base}: holds splits, not generators; give one of them: --data {base / folders[0]}"
        )
    known = [at for at, name in enumerate(folders) if is_known(name)]
    at = known[0] if known else 0
    return folders[at], base.joinpath(*folders[: at + 1])


def _with_shared_reals(samples: list[Sample]) -> list[Sample]:
    """A shared folder's reals become reals of each of its generators that has none of its own."""
    labels: dict[str, set[int]] = {}
    for sample in samples:
        labels.setdefault(sample.generator, set()).add(sample.label)
    takers = {
        shared: [name for name in labels if name.lower() in users and labels[name] == {1}]
        for shared, users in SHARED_REALS.items()
    }
    kept: list[Sample] = []
    for sample in samples:
        names = takers.get(sample.generator.lower(), [])
        if names and labels[sample.generator] == {0}:
            kept.extend(sample._replace(generator=name) for name in names)
        else:
            kept.append(sample)
    return kept


def digest(root: str | os.PathLike[str], samples: list[Sample]) -> str:
    """SHA-256 over relative names and sizes: whether a run resumes on the data it began with."""
    state = hashlib.sha256()
    for sample in samples:
        name = sample.path.relative_to(root).as_posix()
        state.update(os.fsencode(f"{name}\0{sample.path.stat().st_size}\n"))
    return state.hexdigest()
