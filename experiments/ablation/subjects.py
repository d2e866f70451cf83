"""What the figures that look into a network look at: the built-in checkpoint, the sample images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qmdd.exporter.samples import sample_images
from qmdd.models import Detector
from qmdd.models.checkpoint import load_checkpoint
from qmdd.models.zoo import builtin_checkpoint
from qmdd.runtime.images import load_rgb

from .errors import ExperimentError
from .results import Line

#: The sample that is shown: its photograph is in the public domain.
SHOWN = "fake_span_moose.webp"


def checkpoint_file() -> Path:
    """The built-in 2-bit checkpoint."""
    path = builtin_checkpoint("resnet23", 2)
    if path is None:
        raise ExperimentError("the built-in checkpoint resnet23-w2a2 is missing; clone again")
    return path


def builtin() -> Detector:
    """Its detector, in evaluation mode."""
    return load_checkpoint(checkpoint_file())


def pixels(paths: Sequence[Path]) -> Tensor:
    """uint8 ``[N, 3, H, W]`` of images of one size."""
    return torch.from_numpy(np.stack([load_rgb(path) for path in paths])).permute(0, 3, 1, 2)


def shown() -> Path:
    """The file of the sample that is shown."""
    return next(path for path in sample_images() if path.name == SHOWN)


def identity(*, checkpoint: bool = True) -> Line:
    """SHA-256 of the samples and of the checkpoint: what a measured figure belongs to."""
    samples = hashlib.sha256()
    for path in sample_images():
        samples.update(path.read_bytes())
    found = {"samples": samples.hexdigest()}
    if checkpoint:
        found["checkpoint"] = hashlib.sha256(checkpoint_file().read_bytes()).hexdigest()
    return found
