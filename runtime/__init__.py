"""The runtime room: what runs on the device. Nothing here imports torch.

The names below are loaded when they are first used, so that an error class costs no numpy.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from .errors import BundleError, EngineError, ImageError, RuntimeFailure, SessionError

if TYPE_CHECKING:
    from .bundle import Bundle
    from .detector import Detector, Verdict
    from .engine_session import EngineSession
    from .images import find_images, load_rgb
    from .inputs import find_inputs
    from .session import OnnxSession
    from .sessions import open_session

_HOMES = {
    "Bundle": "bundle",
    "Detector": "detector",
    "EngineSession": "engine_session",
    "OnnxSession": "session",
    "Verdict": "detector",
    "find_images": "images",
    "find_inputs": "inputs",
    "load_rgb": "images",
    "open_session": "sessions",
}

# From 1.29 on, ONNX Runtime's own builds report to their makers from the moment they are imported:
# names, hashes and properties of models, and a number of this machine kept in the home folder. What
# is looked at here is nobody else's business; who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Bundle",
    "BundleError",
    "Detector",
    "EngineError",
    "EngineSession",
    "ImageError",
    "OnnxSession",
    "RuntimeFailure",
    "SessionError",
    "Verdict",
    "find_images",
    "find_inputs",
    "load_rgb",
    "open_session",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
