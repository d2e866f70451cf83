"""A full-precision detector at 1/8 of its width, and the images to calibrate it on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from qmdd.calibration.images import CalibrationImages
from qmdd.calibration.observe import observe
from qmdd.models import Detector, build_detector
from qmdd.models.histogram import Histogram

Make = Callable[..., Detector]


@pytest.fixture(scope="session")
def make_source(settle: Callable[[Detector], Detector]) -> Make:
    """``make_source(arch="resnet23", **options)``: full precision, settled, 1/8 of the width."""

    def make(arch: str = "resnet23", **options: object) -> Detector:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return settle(build_detector(arch, 32, width=0.125, **options))

    return make


@pytest.fixture(scope="session")
def _shared_source(make_source: Make) -> Detector:
    return make_source()


@pytest.fixture
def source(_shared_source: Detector) -> Detector:
    """A copy that a test may change."""
    return copy.deepcopy(_shared_source)


@pytest.fixture(scope="session")
def images(image_folder: Path) -> CalibrationImages:
    """The twelve images of ``image_folder``: one batch."""
    return CalibrationImages(image_folder)


@pytest.fixture(scope="session")
def observed(_shared_source: Detector, images: CalibrationImages) -> Mapping[str, Histogram]:
    """What ``source`` shows on ``images``."""
    return observe(_shared_source, images)
