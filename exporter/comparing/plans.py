"""How two bundles are meant to run, layer by layer."""

from __future__ import annotations

from typing import Any

from ...runtime.bundle import Bundle
from ..engine.build import plan_of
from ..errors import ExportError

#: What is compared of two planned layers of one name.
_PARTS = ("op", "compute", "weight_storage", "weights", "weight_bytes", "kernel", "in_shape")


def compare_plans(a: Bundle, b: Bundle) -> dict[str, Any] | str:
    """Plans of both manifests, or why they cannot be compared; plain data.

    Layers are matched by name. Of each that both have, ``same`` and each part of both.
    """
    if not (a.manifest.get("plan") and b.manifest.get("plan")):
        return "not both have a plan"
    try:
        one, other = ({layer.name: layer for layer in plan_of(bundle)} for bundle in (a, b))
    except ExportError as error:
        return str(error)
    rows = []
    for name in dict.fromkeys((*one, *other)):
        x, y = one.get(name), other.get(name)
        row: dict[str, Any] = {"layer": name}
        for part in _PARTS:
            values = [None if side is None else getattr(side, part) for side in (x, y)]
            row[part] = dict(zip("ab", values, strict=True))
        row["same"] = all(row[part]["a"] == row[part]["b"] for part in _PARTS)
        rows.append(row)
    return {"layers": rows, "same": all(row["same"] for row in rows)}
