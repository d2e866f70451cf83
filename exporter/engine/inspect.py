"""What is known of a bundle's layers: as planned, and as built if it holds an engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ...runtime.bundle import Bundle
from ...runtime.engine import LAYERS, EngineRecord, engine_folder, read_json, read_record
from ..errors import ExportError
from ..plan import PlannedLayer, planned_layers
from .audit import Audit, audit
from .build import plan_of
from .layers import EngineLayer


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A bundle, its engine's sidecar if it has one, and the audit of its layers."""

    bundle: Bundle
    record: EngineRecord | None
    audit: Audit

    @property
    def label(self) -> str:
        """What may be claimed of the figures."""
        return self.record.label if self.record else "planned, not built"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "bundle": str(self.bundle.path),
            "arch": self.bundle.arch,
            "bits": self.bundle.bits,
            "target": self.bundle.target,
            "label": self.label,
            "model_bytes": self.bundle.model_bytes,
            "record": dataclasses.asdict(self.record) if self.record else None,
            "audit": self.audit.to_dict(),
        }


def inspect_bundle(path: Path) -> Inspection:
    """Open the bundle in folder ``path`` and audit what it holds.

    Raises:
        BundleError: no such bundle. EngineError: an engine's files that are not ours. ExportError:
            no plan, and none can be made.
    """
    bundle = Bundle.open(path)
    plan = _plan(bundle)
    folder = engine_folder(bundle)
    if folder is None:
        return Inspection(bundle, None, audit(plan, None))
    record = read_record(bundle)
    where = bundle.path / folder / LAYERS
    table = read_json(where)
    layers, warnings = table.get("layers"), table.get("warnings")
    if not isinstance(layers, list) or not _are_warnings(warnings):
        raise ExportError(f"{where}: not a layer table of ours; run qmdd build again")
    found = [EngineLayer.from_dict(layer) for layer in layers]
    return Inspection(bundle, record, audit(plan, found, warnings or ()))


def _are_warnings(held: object) -> bool:
    keys = ("severity", "text", "node")
    return isinstance(held, list) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in keys)
        for entry in held
    )


def _plan(bundle: Bundle) -> list[PlannedLayer]:
    """The manifest's plan; a bundle that was exported before there were plans: its model's."""
    if "plan" in bundle.manifest:
        return plan_of(bundle)
    import onnx

    return planned_layers(onnx.load(bundle.model_path))
