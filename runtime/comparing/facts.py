"""What a bundle or a checkpoint is, as plain facts that stand side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bundle import MODEL, Bundle

#: Of a detector's configuration, in the order in which they are told.
_CONFIG = {
    "representation": "representation",
    "weight": "weight quantizer",
    "activation": "activation quantizer",
    "slr": "SLR",
    "cqb": "CQB",
    "width": "channels",
    "layer_bits": "widths of single layers",
}
#: Of what the exporter counted.
_SIZES = {
    "weights": "weights",
    "multiply_adds": "multiply-adds",
    "fp32_bytes": "full precision, bytes",
    "packed_weight_bytes": "packed weights, bytes",
}
#: A larger report of a device is none of ours.
_MAX_REPORT = 4 << 20


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        path: as it was given.
        kind: ``bundle`` or ``checkpoint``.
        bytes: of the model's file, or the checkpoint's.
        facts: what is known of it, by what it is called; plain data.
    """

    path: Path
    kind: str
    bytes: int
    facts: dict[str, Any]


def side_of_bundle(bundle: Bundle) -> Side:
    """What the manifest of ``bundle`` says."""
    held = bundle.manifest
    facts: dict[str, Any] = {"kind": "bundle", "network": bundle.arch, "bits": bundle.bits}
    source = held.get("source")
    source = source if isinstance(source, dict) else {}
    config = source.get("config")
    facts |= config_facts(config if isinstance(config, dict) else {})
    facts |= {
        "target": bundle.target,
        "runtime": bundle.runtime,
        "weights stored": held.get("weights"),
        "precision": held.get("precision"),
        "opset": held.get("opset"),
        "threshold": bundle.threshold,
        "sides, pixels": _sides(bundle.sides),
        "file, bytes": bundle.model_bytes,
        "file, SHA-256": held["files"][MODEL]["sha256"],
    }
    if bundle.native_path is not None:
        facts["native model, bytes"] = bundle.native_path.stat().st_size
    facts |= size_facts(held.get("size"))
    facts |= _parity_facts(held.get("parity"))
    facts["source, SHA-256"] = source.get("sha256")
    facts["exported by qmdd"] = held.get("qmdd")
    return Side(bundle.path, "bundle", bundle.model_bytes, facts)


def config_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a detector's configuration."""
    return {shown: config[key] or False for key, shown in _CONFIG.items() if key in config}


def size_facts(size: object) -> dict[str, Any]:
    """Of what ``qmdd export`` counts."""
    if not isinstance(size, dict):
        return {}
    return {shown: size[key] for key, shown in _SIZES.items() if key in size}


def _sides(sides: Mapping[str, int]) -> str:
    return f"{sides['min_side']} to {sides['max_side']}, in steps of {sides['multiple']}"


def _parity_facts(tiers: object) -> dict[str, Any]:
    """A line for each tier of the export's own parity check; what is no tier is left out."""
    found = {}
    for tier in tiers if isinstance(tiers, list) else ():
        if not isinstance(tier, dict) or not isinstance(tier.get("tier"), str):
            continue
        wrong, compared, images = (
            tier.get(key) for key in ("wrong_codes", "codes_compared", "images")
        )
        if all(type(number) is int for number in (wrong, compared, images)):
            found[f"parity, {tier['tier']}"] = (
                f"{wrong:,} of {compared:,} codes wrong, {images:,} images"
            )
    return found or {"parity": "not checked"}


def compared_facts(a: Side, b: Side) -> list[dict[str, Any]]:
    """Each fact of both: ``what``, ``a``, ``b`` (``None`` where it is not known), ``same``."""
    names = [*a.facts, *(name for name in b.facts if name not in a.facts)]
    rows = []
    for name in names:
        one, other = a.facts.get(name), b.facts.get(name)
        rows.append({"what": name, "a": one, "b": other, "same": one == other})
    return rows


def device_rows(bundle: Bundle) -> list[dict[str, Any]]:
    """What was measured of ``bundle`` as it is on devices: reports of ``qmdd deploy``.

    Reports that cannot be read, or are of another state of the bundle, are left out.
    """
    folder = bundle.path / "devices"
    now = bundle.manifest_sha256
    rows = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            if path.stat().st_size > _MAX_REPORT:
                continue
            report = json.loads(path.read_text(encoding="utf-8"))
            if report["manifest_sha256"] != now:
                continue
            for place in report["bench"]["configurations"]:
                for row in place["rows"]:
                    rows.append(
                        {
                            "device": path.stem,
                            "runtime": str(row["name"]),
                            "threads": int(place["threads"]),
                            "batch": int(place["batch"]),
                            "median_ms": float(row["times"]["median_ms"]),
                        }
                    )
        except (OSError, OverflowError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return rows
