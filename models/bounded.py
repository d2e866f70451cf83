"""Checkpoint files, which come from outside, read within a bound of memory (1 GiB with torch)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from .errors import CheckpointError

#: Larger files are refused unread: a ResNet-50 with Adam's state takes 293 MiB.
MAX_BYTES = 320 << 20
#: Longer headers of safetensors files are refused unread: parsed, they take 13 times as much. A
#: ResNet-50's takes 60 kB.
MAX_HEADER = 4 << 20


def sha256_of(stream: IO[bytes]) -> str:
    """SHA-256 of what ``stream`` holds from here on, hexadecimal; it is read in parts."""
    state = hashlib.sha256()
    while block := stream.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def check_header(path: Path, head: bytes) -> None:
    """Refuse a safetensors file that states a longer header than :data:`MAX_HEADER`.

    Args:
        path: for the error.
        head: its first bytes, at least 8.

    Raises:
        CheckpointError: it does.
    """
    size = int.from_bytes(head[:8], "little")
    if size > MAX_HEADER:
        raise CheckpointError(
            f"{path}: not a whole safetensors file (it states a header of {size:,} bytes); copy or "
            "download it again"
        )


def not_finite(tensor: Tensor) -> int:
    """How many numbers of a contiguous tensor are NaN or infinity; looked at in parts.

    Of a whole tensor at once, ``isfinite`` makes two more of the same size.
    """
    flat, step = tensor.view(-1), 1 << 22
    bad = 0
    for start in range(0, flat.numel(), step):
        bad += int((~torch.isfinite(flat[start : start + step])).sum())
    return bad
