"""What is known of a bundle's layers: as planned, and as built if it holds an engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ...runtime.bundle import MODEL, Bundle
from ...runtime.engine import LAYERS, EngineRecord, engine_folder, read_json, read_record
from ...runtime.errors import SessionError
from ...runtime.sessions import OPENVINO
from ..errors import ExportError
from ..plan import PlannedLayer, planned_layers
from ..read_model import model_of, of_ours
from .audit import Audit, audit
from .build import plan_of
from .layers import EngineLayer


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A bundle, its engine's sidecar if it has one, and the audit of its layers."""

    bundle: Bundle
    record: EngineRecord | None
    audit: Audit
    compiled_here: bool = False

    @property
    def label(self) -> str:
        """What may be claimed of the figures."""
        if self.compiled_here:
            return "compiled here by OpenVINO"
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
        planned = audit(plan, None)
        built = _compiled(bundle, planned) if bundle.runtime == OPENVINO else None
        return Inspection(bundle, None, built or planned, built is not None)
    record = read_record(bundle)
    where = bundle.path / folder / LAYERS
    table = read_json(where)
    layers, warnings = table.get("layers"), table.get("warnings")
    if not isinstance(layers, list) or not _are_warnings(warnings):
        raise ExportError(f"{where}: not a layer table of ours; run qmdd build again")
    bundle.check_unchanged()
    found = [EngineLayer.from_dict(layer) for layer in layers]
    return Inspection(bundle, record, audit(plan, found, warnings or ()))


def _compiled(bundle: Bundle, planned: Audit) -> Audit | None:
    """The plan beside what OpenVINO compiles of it on this machine; ``None`` where it is missing.

    OpenVINO keeps no engine: it compiles a model whenever it loads it.
    """
    from ...runtime.openvino_audit import openvino_layers
    from ...runtime.openvino_session import require_openvino

    try:
        require_openvino()
    except SessionError:
        return None
    layers = tuple(
        dataclasses.replace(
            layer,
            built=found.built,
            engine_layers=(found.kernel,) if found.kernel else (),
            reason="" if found.as_planned else f"planned {found.planned}, runs {found.built}",
        )
        for layer, found in zip(planned.layers, openvino_layers(bundle), strict=True)
    )
    return dataclasses.replace(planned, layers=layers, engine_layers=len(layers))


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
    with of_ours(bundle.model_path):
        return planned_layers(model_of(bundle.read(MODEL), bundle.model_path))
