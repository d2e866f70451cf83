"""Build a detector by name."""

from __future__ import annotations

from .config import DetectorConfig
from .conv import quantised_convolutions
from .detector import Detector
from .errors import ModelError
from .mobilenet import MobileNetV2Detector
from .n2uq_resnet import N2uqResNetDetector
from .npr_resnet import NprResNetDetector
from .resnet import ResNetDetector

_BUILDERS: dict[str, type[Detector]] = {
    "resnet23": ResNetDetector,
    "resnet34": ResNetDetector,
    "resnet50": ResNetDetector,
    "mobilenetv2": MobileNetV2Detector,
    "npr_resnet50": NprResNetDetector,
    "n2uq_resnet18": N2uqResNetDetector,
    "n2uq_resnet34": N2uqResNetDetector,
    "n2uq_resnet50": N2uqResNetDetector,
}


def detector_from_config(config: DetectorConfig) -> Detector:
    """A fresh detector, in training mode, with initial weights from torch's generator.

    Raises:
        ModelError: a layer named in ``config.layer_bits`` does not exist.
    """
    detector = _BUILDERS[config.arch](config)
    _check_layer_names(detector)
    return detector


def _check_layer_names(detector: Detector) -> None:
    known = [name.removesuffix(".conv") for name, _ in quantised_convolutions(detector)][1:]
    unknown = [name for name, _ in detector.config.layer_bits if name not in known]
    if unknown:
        raise ModelError(
            f"layer_bits: {detector.config.arch} has no layer {unknown[0]!r}; its layers are "
            f"{', '.join(known[:3])}, ..."
        )


def build_detector(arch: str = "resnet23", bits: int = 2, **options: object) -> Detector:
    """A fresh detector, in training mode, with initial weights from torch's generator.

    Args:
        arch: one of :data:`.config.ARCHITECTURES`.
        bits: 1, 2, 3, 4 or 8; 32 gives the full-precision twin.
        options: further fields of :class:`DetectorConfig`.

    Raises:
        ModelError: an unsupported value.

    >>> build_detector("resnet23", bits=2).config.slr
    True
    """
    return detector_from_config(DetectorConfig(arch=arch, bits=bits, **options))  # type: ignore[arg-type]
