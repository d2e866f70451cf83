"""Build a detector by name."""

from __future__ import annotations

from .config import DetectorConfig
from .resnet import Detector


def build_detector(arch: str = "resnet23", bits: int = 2, **options: object) -> Detector:
    """A fresh detector, in training mode, with initial weights from torch's generator.

    Args:
        arch: ``resnet23``, ``resnet34`` or ``resnet50``.
        bits: 2, 3, 4 or 8; 32 gives the full-precision twin.
        options: further fields of :class:`DetectorConfig`.

    Raises:
        ModelError: an unsupported value.

    >>> build_detector("resnet23", bits=2).config.slr
    True
    """
    return Detector(DetectorConfig(arch=arch, bits=bits, **options))  # type: ignore[arg-type]
