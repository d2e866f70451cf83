"""The model of every target against its source, on real images: codes, logits, verdicts.

Each built-in checkpoint is lowered for every target and in every storage and precision that it has.
Many of these files are equal to the byte (all Jetsons of one TensorRT generation, say): every
different one is compared with the PyTorch source in the target's own runtime, with its optimiser
off and on. *Measured*.

The exit code is 1 if a code differs, a verdict is flipped, or a logit is off by more than the bar.
"""

from __future__ import annotations

import argparse
import hashlib
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
from qmdd.exporter.targets import TARGETS, Target
from qmdd.models.zoo import builtin_checkpoints

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def choices(target: Target) -> Iterator[dict[str, str]]:
    """The storages and precisions of a target, its defaults first."""
    yield {}
    if target.engine is None:
        if target.name == "onnx":
            yield from ({"weights": storage} for storage in ("int8", "int4", "int2"))
        return
    yield from ({"weights": storage} for storage in target.engine.storages[1:])
    yield from ({"precision": name} for name in target.engine.precisions[1:])


def spread(data: Path, count: int) -> list[Path]:
    """``count`` images of ``data``, evenly from all of its folders."""
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES)
    return files[:: max(1, len(files) // count)][:count]


def main() -> None:
    """Lower, tell apart, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("QMDD_DATA"), help="or QMDD_DATA")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--checkpoint", action="append", help="built-in; default: all")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("give the data set's folder: --data or QMDD_DATA")
    images = spread(Path(arguments.data) / "test", arguments.images)
    torch.set_num_threads(2)
    rows: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        for checkpoint in builtin_checkpoints():
            if arguments.checkpoint and checkpoint.stem not in arguments.checkpoint:
                continue
            for target in TARGETS.values():
                if target.refused:
                    refused[target.name] = target.refused
                    continue
                for options in choices(target):
                    bundle = Path(name) / "bundle"
                    what = f"{checkpoint.stem} {target.name} {json.dumps(options)}"
                    try:
                        export_bundle(
                            checkpoint, bundle, target=target.name, verify=False, force=True,
                            **options,
                        )  # fmt: skip
                    except ExportError as error:
                        refused[what] = str(error)
                        continue
                    model = (bundle / "model.onnx").read_bytes()
                    key = hashlib.sha256(model + target.runtime.encode()).hexdigest()
                    if key in rows:
                        rows[key]["same_bytes"].append(what)
                        continue
                    found = verify_bundle(bundle, images=images)
                    rows[key] = {
                        "what": what,
                        "bytes": len(model),
                        "passed": found.passed,
                        "tiers": [
                            {k: v for k, v in tier.to_dict().items() if k != "layers"}
                            for tier in found.parity
                        ],
                        "same_bytes": [],
                    }
                    print(what, rows[key]["passed"], rows[key]["tiers"], flush=True)
    tiers = [tier for row in rows.values() for tier in row["tiers"]]
    failed = [row["what"] for row in rows.values() if not row["passed"]]
    record(
        "target_parity",
        {
            "label": "measured",
            "images": len(images),
            "different_models": len(rows),
            "models": sum(1 + len(row["same_bytes"]) for row in rows.values()),
            "codes_compared": sum(tier["codes_compared"] for tier in tiers),
            "wrong_codes": sum(tier["wrong_codes"] for tier in tiers),
            "flipped_verdicts": sum(tier["flipped_verdicts"] for tier in tiers),
            "max_abs_logit_diff": max(tier["max_abs_logit_diff"] for tier in tiers),
            "failed": failed,
            "refused": refused,
            "rows": list(rows.values()),
        },
    )
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
