"""The models room: NPR, quantizers, CQB, backbones, checkpoints. Knows torch, nothing of ONNX."""

from __future__ import annotations

from .config import ARCHITECTURES, DetectorConfig
from .errors import CheckpointError, ModelError
from .registry import build_detector
from .resnet import Detector, quantized_layers

__all__ = [
    "ARCHITECTURES",
    "CheckpointError",
    "Detector",
    "DetectorConfig",
    "ModelError",
    "build_detector",
    "quantized_layers",
]
