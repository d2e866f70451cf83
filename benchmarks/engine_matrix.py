"""Engines of all networks at full size and width: built for three RTX generations, and audited.

ResNet-23, ResNet-50 and MobileNetV2 at 1, 2, 3 and 4 bits, INT8 engines for compute capabilities
8.6, 8.9 and 12.0 at once. Detectors are untrained, their statistics and ranges those of noise: what
a builder does depends on shapes and types alone. *Built, not run*: no GPU takes part.

The exit code is 1 if a build fails, a layer does not run as planned, or a warning is unlisted.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
from _record import record
from matrix import settled

from qmdd.exporter.engine.build import build_engine
from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import source_from_network

ARCHITECTURES = ("resnet23", "resnet50", "mobilenetv2")
BITS = (1, 2, 3, 4)


def measure(arch: str, bits: int) -> dict[str, Any]:
    """Export and build one; what the audit says."""
    with tempfile.TemporaryDirectory() as name:
        bundle = Path(name) / "bundle"
        row = {"arch": arch, "bits": bits}
        export_bundle(source_from_network(settled(row, 1.0), arch), bundle, target="rtx",
                      verify=False)  # fmt: skip
        result = build_engine(bundle)
    audit = result.audit
    return {
        "arch": arch,
        "bits": bits,
        "int8_planned": audit.count("int8", built=False),
        "int8_built": audit.count("int8", built=True),
        "faults": audit.faults,
        "warnings": len(audit.warnings),
        "unlisted": len(audit.unlisted),
        "engine_bytes": result.record.sizes["engine"],
        "seconds": round(sum(result.record.seconds.values()), 2),
        "peak_mib": round(result.record.sizes["peak_memory"] / (1 << 20)),
    }


def main() -> None:
    """Build all of them."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(2)
    rows = []
    for arch, bits in itertools.product(ARCHITECTURES, BITS):
        rows.append(measure(arch, bits))
        print(rows[-1], flush=True)
    bad = [
        row
        for row in rows
        if row["faults"] or row["unlisted"] or row["int8_planned"] != row["int8_built"]
    ]
    record("engine_matrix", {"label": "built, not run", "target": "rtx", "rows": rows, "bad": bad})
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
