"""The target table as the runtime's doctor takes it: what each asks of a machine."""

from __future__ import annotations

from ..runtime.device.needs import TargetNeeds
from .targets import TARGETS, Target


def all_needs() -> list[TargetNeeds]:
    """Of every target, refused ones too, in the table's order."""
    return [needs_of(target) for target in TARGETS.values()]


def needs_of(target: Target) -> TargetNeeds:
    """Of one target."""
    engine = target.engine
    return TargetNeeds(
        name=target.name,
        summary=target.summary,
        runtime=target.runtime,
        backend=engine.backend if engine else "",
        versions=engine.versions if engine else ("", ""),
        capabilities=engine.compute_capabilities if engine else (),
        jetpack=target.jetpack or "",
        memory=target.memory_gib << 30,
        workspace=engine.workspace_mib << 20 if engine else 0,
        refused=target.refused,
    )
