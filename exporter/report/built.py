"""A bundle's layers: as planned, and as built where it holds an engine or its runtime tells."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...runtime.bundle import Bundle
from ...runtime.errors import RuntimeFailure
from ..engine.inspect import Inspection, inspect_bundle
from ..errors import ExportError


def layers(bundle: Bundle) -> tuple[dict[str, Any] | None, str]:
    """Plain data of :func:`~..engine.inspect.inspect_bundle`, or why there is none."""
    try:
        found = inspect_bundle(bundle.path)
    except (ExportError, RuntimeFailure) as error:
        return None, str(error)
    except ModuleNotFoundError as error:  # a bundle of before there were plans needs onnx
        return None, f"{error.name} is not installed here"
    return _told(found), ""


def _told(found: Inspection) -> dict[str, Any]:
    audit, record = found.audit, found.record
    engine = None
    if record is not None:
        engine = {
            "label": record.label,
            "backend": record.backend,
            "version": record.version,
            "compute_capabilities": list(record.compute_capabilities),
            "bytes": record.sizes["engine"],
            "peak_memory": record.sizes["peak_memory"],
            "seconds": sum(record.seconds.values()),
        }
    return {
        "label": found.label,
        "engine": engine,
        "rows": [
            {
                "layer": layer.name,
                "op": layer.op,
                "planned": layer.planned,
                "built": layer.built,
                "storage": layer.built_storage or layer.planned_storage,
                "weight_bytes": layer.weight_bytes,
                "input_bytes": layer.input_bytes,
                "fell_back": layer.fell_back,
                "reason": layer.reason,
            }
            for layer in audit.layers
        ],
        "planned": dict(Counter(layer.planned for layer in audit.layers)),
        "built": dict(Counter(layer.built for layer in audit.layers if layer.built)),
        "faults": audit.faults,
        "unlisted_warnings": len(audit.unlisted),
        "passed": audit.passed,
    }
