"""The target table for people and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..models.tables import Table
from .targets import CLAIMS, TARGETS, EngineSpec, Target


def target_table(targets: Sequence[Target]) -> Table:
    """One row a target; what an engine has is left empty where there is none."""
    columns = ("target", "for", "GPU", "TensorRT", "opset", "weights", "memory", "claim")
    return Table("", columns, [_row(target) for target in targets], _notes(targets))


def target_dict(target: Target) -> dict[str, Any]:
    """Plain data for JSON."""
    return dataclasses.asdict(target)


def target_lines(target: Target) -> list[str]:
    """One target in full: a line a fact."""
    facts = {
        "target": target.name,
        "for": target.summary,
        "form": target.form,
        "runs here by": "" if target.refused else target.runtime,
        "opset": "" if target.refused else _opsets(target),
        "passes": ", ".join(target.passes),
        "memory": f"{target.memory_gib} GiB" if target.memory_gib else "",
        **(_engine_facts(target.engine) if target.engine else {}),
        "claim": f"{target.claim}: {CLAIMS[target.claim]}",
        "refused": target.refused,
    }
    width = max(len(name) for name in facts)
    return [f"{name:<{width}}  {value}" for name, value in facts.items() if value]


def _engine_facts(engine: EngineSpec) -> dict[str, str]:
    typing = "weak: INT8 is a permission" if engine.weak_typing else "strong: that of the graph"
    return {
        "builder": engine.backend,
        "TensorRT": _versions(engine),
        "GPU": _capabilities(engine),
        "typing": typing,
        "workspace": f"{engine.workspace_mib} MiB by default",
        "weights": ", ".join(engine.storages),
        "precision": ", ".join(engine.precisions),
    }


def _row(target: Target) -> tuple[str, ...]:
    engine = target.engine
    return (
        target.name,
        target.summary,
        _capabilities(engine) if engine else "",
        _versions(engine) if engine else "",
        "" if target.refused else _opsets(target),
        _weights(engine) if engine else "",
        f"{target.memory_gib} GiB" if target.memory_gib else "",
        target.claim,
    )


def _weights(engine: EngineSpec) -> str:
    """Storages, and INT4 where it exists for matrix products alone."""
    products = [p for p in engine.precisions if p not in engine.storages]
    return ", ".join([*engine.storages, *(f"{name} products" for name in products)])


def _versions(engine: EngineSpec) -> str:
    low, high = engine.versions
    name = "RTX " if engine.backend == "tensorrt_rtx" else ""
    return f"{name}{low}" if low == high else f"{name}{low}-{high}"


def _capabilities(engine: EngineSpec) -> str:
    return " ".join(f"sm{text.replace('.', '')}" for text in engine.compute_capabilities) or "any"


def _opsets(target: Target) -> str:
    low, high = target.opsets
    return f"{low}" if low == high else f"{low}-{high}"


def _notes(targets: Sequence[Target]) -> list[str]:
    found = dict.fromkeys(target.claim for target in targets)
    notes = [f"{claim}: {CLAIMS[claim]}" for claim in CLAIMS if claim in found]
    jetsons = [target for target in targets if "@" in target.name]
    if jetsons:
        notes.append("a Jetson's name without @JetPack means the first that is listed for it")
    return notes


def all_targets() -> list[Target]:
    """All of them, refused ones too, in the table's order."""
    return list(TARGETS.values())
