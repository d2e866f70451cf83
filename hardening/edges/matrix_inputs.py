"""Images of odd sizes with what the source makes of them, as files that any environment reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qmdd.exporter.parity import source_outputs
from qmdd.models.checkpoint import load_checkpoint
from qmdd.runtime.images import load_rgb
from qmdd.runtime.preprocess import prepare

#: Width and height as a file has them; odd sides lose a pixel, as everywhere (prepare).
SIZES = ((32, 32), (33, 35), (512, 32), (32, 512), (97, 161), (256, 256))
#: Images of each size: one batch of the largest.
COUNT = 14


def write_sets(
    checkpoint: Path,
    images: Sequence[Path],
    folder: Path,
    sizes: Sequence[tuple[int, int]] = SIZES,
    count: int = COUNT,
) -> dict[str, Path]:
    """Write ``<width>x<height>.npz`` for each size and return the files by that name.

    A file holds ``images`` uint8 ``[count, 3, h, w]``, ``logits`` float32 ``[count]`` and the codes
    of each layer, uint8 ``[count, C, h', w']``, called ``codes:<layer>``. One that is there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = None
    found = {}
    for width, height in sizes:
        path = folder / f"{width}x{height}.npz"
        found[path.stem] = path
        if path.exists():
            continue
        network = network or load_checkpoint(checkpoint).eval()
        pixels = np.stack([_cut(images[i % len(images)], width, height) for i in range(count)])
        with torch.no_grad():
            logits, codes = source_outputs(network, pixels)
        arrays: dict[str, Any] = {f"codes:{layer}": array for layer, array in codes.items()}
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(stream, images=pixels, logits=logits, **arrays)
        part.replace(path)
    return found


def _cut(path: Path, width: int, height: int) -> np.ndarray:
    """An image of that size, its own pixels repeated where it is smaller."""
    rgb = load_rgb(path)
    down, right = -(-height // rgb.shape[0]), -(-width // rgb.shape[1])
    cut = np.tile(rgb, (down, right, 1))[:height, :width]
    return prepare(np.ascontiguousarray(cut), min_side=32, multiple=2, max_side=512)
