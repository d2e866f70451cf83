"""How many steps a file's pickles take, counted before any is made.

torch's safe unpickler makes each of a pickle's steps in Python: 15 MB of them take 100 seconds, a
file of the allowed size most of an hour. Counting stops where there are more than any checkpoint
of a network has.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import IO

from ..errors import CheckpointError

#: A ResNet-50 with its optimiser's state takes 30,000.
MAX_STEPS = 1_000_000
#: Before its numbers, a file of torch's older format has so many pickles.
_PICKLES = 5


def check_steps(path: Path, stream: IO[bytes], zipped: bool) -> None:
    """Refuse a file whose pickles take more than :data:`MAX_STEPS`; ``stream`` is rewound.

    Raises:
        CheckpointError: it does.
    """
    left = MAX_STEPS
    if zipped:
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("data.pkl"):
                    left -= _steps_of(path, archive, entry, left)
    else:
        for _ in range(_PICKLES):
            left -= _steps(path, stream, left)
    stream.seek(0)


def _steps_of(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> int:
    try:
        pickled = archive.open(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError):
        return 0  # torch cannot read it either, and says why
    with pickled:
        return _steps(path, pickled, most)


def _steps(path: Path, stream: IO[bytes], most: int) -> int:
    """Steps of the pickle that begins here; of a damaged one those before the damage."""
    count = 0
    try:
        for _ in pickletools.genops(stream):
            count += 1
            if count > most:
                raise CheckpointError(
                    f"{path}: takes more than {MAX_STEPS:,} steps to unpickle, so no checkpoint of "
                    "a network; save its state_dict() alone"
                )
    except (ValueError, zipfile.BadZipFile, OverflowError, OSError, EOFError):
        pass  # torch's own unpickler ends there too, and says why
    return count
