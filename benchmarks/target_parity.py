"""The model of every target against its source, on real images: codes, logits, verdicts.

Each built-in checkpoint is lowered for every target and in every storage and precision that it has.
Many of these are the same passes with the same arguments (all Jetsons of one TensorRT generation,
say): every different lowering is compared with the PyTorch source in the target's own runtime, with
its optimiser off and on. *Measured*.

The exit code is 1 if a code differs, a verdict is flipped, or a logit is off by more than the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _record import record

from qmdd.exporter.errors import ExportError
from qmdd.exporter.export import export_bundle
from qmdd.exporter.parity import verify_bundle
from qmdd.exporter.storage import choose_storage
from qmdd.exporter.targets import TARGETS, Target
from qmdd.models.zoo import builtin_checkpoints

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def choices(target: Target) -> Iterator[dict[str, str]]:
    """The storages and precisions of a target, its defaults first."""
    yield {}
    if target.engine is None:
        if target.name in ("onnx", "cpu"):
            yield from ({"weights": storage} for storage in ("int8", "int4", "int2"))
        return
    yield from ({"weights": storage} for storage in target.engine.storages[1:])
    yield from ({"precision": name} for name in target.engine.precisions[1:])


def spread(data: Path, count: int) -> list[Path]:
    """``count`` images of ``data``, evenly from all of its folders."""
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES)
    return files[:: max(1, len(files) // count)][:count]


def lowering(target: Target, options: dict[str, str]) -> tuple[Any, ...]:
    """All that a lowering depends on, beside the checkpoint."""
    chosen = choose_storage(target, options.get("weights"), None, options.get("precision"))
    able = target.engine.storages if target.engine else ()
    return (target.form, target.runtime, target.passes, able, *chosen)


def lowerings() -> Iterator[tuple[Target, dict[str, str], list[str]]]:
    """Every different lowering, with the targets and options that it serves."""
    found: dict[tuple[Any, ...], tuple[Target, dict[str, str], list[str]]] = {}
    for target in TARGETS.values():
        for options in [] if target.refused else choices(target):
            key = lowering(target, options)
            words = " ".join(
                [target.name, *(f"--{name} {value}" for name, value in options.items())]
            )
            found.setdefault(key, (target, options, []))[2].append(words)
    yield from found.values()


def compared(checkpoint: Path, target: Target, options: dict[str, str], images: list[Path],
             bundle: Path) -> dict[str, Any]:  # fmt: skip
    """Export and verify; what came out."""
    try:
        export_bundle(checkpoint, bundle, target=target.name, verify=False, force=True, **options)
    except ExportError as error:
        return {"refused": str(error), "passed": True, "tiers": []}
    found = verify_bundle(bundle, images=images)
    tiers = [
        {name: value for name, value in tier.to_dict().items() if name != "layers"}
        for tier in found.parity
    ]
    return {"passed": found.passed, "tiers": tiers, "bytes": found.model_bytes}


def main() -> None:
    """Lower and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("QMDD_DATA"), help="or QMDD_DATA")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--checkpoint", action="append", help="built-in; default: all")
    parser.add_argument("--rows", type=Path, default=Path("runs/target_parity.jsonl"))
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("give the data set's folder: --data or QMDD_DATA")
    images = spread(Path(arguments.data) / "test", arguments.images)
    torch.set_num_threads(2)
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.rows.read_text().splitlines() if arguments.rows.exists() else []
    rows = [json.loads(line) for line in lines]  # an interrupted run goes on where it was
    for checkpoint in builtin_checkpoints():
        if arguments.checkpoint and checkpoint.stem not in arguments.checkpoint:
            continue
        for target, options, serves in lowerings():
            named = {"checkpoint": checkpoint.stem, "serves": serves}
            if any(named.items() <= row.items() for row in rows):
                continue
            with tempfile.TemporaryDirectory() as name:
                found = compared(checkpoint, target, options, images, Path(name) / "bundle")
            rows.append({**named, **found})
            with arguments.rows.open("a") as log:
                log.write(json.dumps(rows[-1]) + "\n")
            print({**rows[-1], "serves": serves[0]}, flush=True)
    tiers = [tier for row in rows for tier in row["tiers"]]
    failed = [row for row in rows if not row["passed"]]
    record(
        "target_parity",
        {
            "label": "measured",
            "images": len(images),
            "lowerings": len(rows),
            "targets_and_options": sum(len(row["serves"]) for row in rows),
            "codes_compared": sum(tier["codes_compared"] for tier in tiers),
            "wrong_codes": sum(tier["wrong_codes"] for tier in tiers),
            "flipped_verdicts": sum(tier["flipped_verdicts"] for tier in tiers),
            "max_abs_logit_diff": max(tier["max_abs_logit_diff"] for tier in tiers),
            "failed": failed,
            "rows": rows,
        },
    )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
