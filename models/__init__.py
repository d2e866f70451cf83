"""The models room: NPR, quantizers, CQB, backbones, checkpoints. Knows torch, nothing of ONNX."""

from __future__ import annotations

from .chain import ActivationChain, quantised_chains
from .codes import Codes
from .config import ARCHITECTURES, DetectorConfig
from .conv import QuantConv2d, quantised_convolutions
from .cqb import CQB
from .detector import Detector, Head
from .errors import CheckpointError, ModelError
from .registry import build_detector, detector_from_config
from .stem import Stem

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
