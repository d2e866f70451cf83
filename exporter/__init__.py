"""The exporter room: frozen detector to canonical ONNX, target ONNX, bundle; parity.

The names below are loaded when they are first used, so that an error class costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import BuildError, ExportError, ParityError

if TYPE_CHECKING:
    from .engine.build import BuildResult, build_engine
    from .export import ExportResult, export_bundle
    from .lower import Lowered, onnx_for_target
    from .parity import verify_bundle
    from .plan import PlannedLayer, planned_layers
    from .source import Source, source_from_checkpoint, source_from_module, source_from_network
    from .targets import CLAIMS, TARGETS, Target, find_target
    from .trace import canonical_from_detector

_HOMES = {
    "CLAIMS": "targets",
    "TARGETS": "targets",
    "BuildResult": "engine.build",
    "ExportResult": "export",
    "Lowered": "lower",
    "PlannedLayer": "plan",
    "Source": "source",
    "Target": "targets",
    "build_engine": "engine.build",
    "canonical_from_detector": "trace",
    "export_bundle": "export",
    "find_target": "targets",
    "onnx_for_target": "lower",
    "planned_layers": "plan",
    "source_from_checkpoint": "source",
    "source_from_module": "source",
    "source_from_network": "source",
    "verify_bundle": "parity",
}

__all__ = [
    "CLAIMS",
    "TARGETS",
    "BuildError",
    "BuildResult",
    "ExportError",
    "ExportResult",
    "Lowered",
    "ParityError",
    "PlannedLayer",
    "Source",
    "Target",
    "build_engine",
    "canonical_from_detector",
    "export_bundle",
    "find_target",
    "onnx_for_target",
    "planned_layers",
    "source_from_checkpoint",
    "source_from_module",
    "source_from_network",
    "verify_bundle",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
