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
from .images import find_images

#: Folder names of the classes, by label.
CLASS_FOLDERS = ("0_real", "1_fake")


class Sample(NamedTuple):
    """One image: its file, its label (0 real, 1 fake), the generator whose folder holds it."""

    path: Path
    label: int
    generator: str


def scan(root: str | os.PathLike[str]) -> list[Sample]:
    """All samples below ``root``, ordered by path.

    Raises:
        DataError: no such folder, no image in the layout, or a class without images.
    """
    base = Path(root)
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; --data takes <generator>/0_real and 1_fake in it")
    samples = []
    for path in find_images([base]):
        parts = path.relative_to(base).parts
        for label, name in enumerate(CLASS_FOLDERS):
            if name in parts[:-1]:
                generator = parts[0] if parts[0] != name else base.resolve().name
                samples.append(Sample(path, label, generator))
    if not samples:
        raise DataError(
            f"{base}: no images in the layout <generator>/0_real/*.png, <generator>/1_fake/*.png"
        )
    per_class = Counter(sample.label for sample in samples)
    for label, name in enumerate(CLASS_FOLDERS):
        if not per_class[label]:
            raise DataError(f"{base}: no image in any {name} folder; both classes are needed")
    return sorted(samples, key=lambda sample: sample.path)


def digest(root: str | os.PathLike[str], samples: list[Sample]) -> str:
    """SHA-256 over relative names and sizes: whether a run resumes on the data it began with."""
    state = hashlib.sha256()
    for sample in samples:
        name = sample.path.relative_to(root).as_posix()
        state.update(f"{name}\0{sample.path.stat().st_size}\n".encode())
    return state.hexdigest()
