"""Export time, parity left out, over that of ``torch.onnx.export`` of the full-precision twin.

The two take turns in one process; the ratio of the medians counts. The twin's export is the plain
``torch.onnx.export(dynamo=True)`` of the same topology and its serialisation; ours is everything
from the checkpoint's file to the bytes of ``model.onnx``: reading, freezing, tables, tracing,
passes, packing, the checker.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from _record import record

from qmdd.exporter.export import export_bundle
from qmdd.models import build_detector
from qmdd.models.zoo import builtin_checkpoint


def twin_seconds(arch: str) -> float:
    """One export of the twin; building it is not counted."""
    twin = build_detector(arch, 32).eval()
    image = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    started = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(twin, (image,), dynamo=True, verbose=False)
        if program is None:
            raise SystemExit("torch.onnx.export gave nothing")
        program.model_proto.SerializeToString()
    return time.perf_counter() - started


def our_seconds(checkpoint: Path) -> float:
    """One export of ours, as it reports it."""
    with tempfile.TemporaryDirectory() as folder:
        return export_bundle(checkpoint, Path(folder) / "bundle", verify=False).seconds


def main() -> None:
    """Warm both up once, then take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=builtin_checkpoint("resnet23", 2))
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    twin_seconds("resnet23")
    our_seconds(arguments.checkpoint)
    twin, ours = [], []
    for _ in range(arguments.runs):
        twin.append(twin_seconds("resnet23"))
        ours.append(our_seconds(arguments.checkpoint))
    ratios = [a / b for a, b in zip(ours, twin, strict=True)]
    record(
        "export_time",
        {
            "checkpoint": arguments.checkpoint.name,
            "runs": arguments.runs,
            "ratio": round(statistics.median(ours) / statistics.median(twin), 3),
            "ratios_pairwise": [round(r, 3) for r in ratios],
            "seconds_ours": [round(s, 2) for s in ours],
            "seconds_twin": [round(s, 2) for s in twin],
        },
    )


if __name__ == "__main__":
    main()
