"""The models room: NPR, quantizers, CQB, backbones, checkpoints. Knows torch, nothing of ONNX.

The names below are loaded when they are first used, so that what needs no torch (the errors, the
list of built-in checkpoints) does not import it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import CheckpointError, ModelError

if TYPE_CHECKING:
    from .chain import ActivationChain, quantised_chains
    from .codes import Codes
    from .config import ARCHITECTURES, DetectorConfig
    from .conv import QuantConv2d, quantised_convolutions
    from .cqb import CQB
    from .detector import Detector, Head
    from .registry import build_detector, detector_from_config
    from .stem import Stem

_HOMES = {
    "ARCHITECTURES": "config",
    "CQB": "cqb",
    "ActivationChain": "chain",
    "Codes": "codes",
    "Detector": "detector",
    "DetectorConfig": "config",
    "Head": "detector",
    "QuantConv2d": "conv",
    "Stem": "stem",
    "build_detector": "registry",
    "detector_from_config": "registry",
    "quantised_chains": "chain",
    "quantised_convolutions": "conv",
}

__all__ = [
    "ARCHITECTURES",
    "CQB",
    "ActivationChain",
    "CheckpointError",
    "Codes",
    "Detector",
    "DetectorConfig",
    "Head",
    "ModelError",
    "QuantConv2d",
    "Stem",
    "build_detector",
    "detector_from_config",
    "quantised_chains",
    "quantised_convolutions",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
