"""Build time, peak memory and size of an engine, by how its weights are held.

The built-in checkpoint is exported for RTX cards (three compute capabilities), once for each
storage, and each bundle's engine is built several times on two cores. Time is the builder's own,
from loading TensorRT to the finished engine; memory is the most that its process held at once. The
builds of one bundle must agree byte for byte. *Built, not run*: no GPU takes part.

The exit code is 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from _record import record

from qmdd.exporter.engine.build import BuildResult, build_engine
from qmdd.exporter.export import export_bundle
from qmdd.models.zoo import builtin_checkpoint

CORES = 2
#: Of the builder, with weights as INT8.
SECONDS, MIB = 10, 1024
#: Size of the engine over that with weights as INT8.
SIZES = {"int8": 1.0, "int4": 0.60, "int2": 0.45}


def built(bundle: Path, runs: int, side: str | None) -> dict[str, Any]:
    """``runs`` engines of one bundle."""
    results = [build_engine(bundle, side=side) for _ in range(runs)]
    first = results[0]
    seconds = [round(sum(result.record.seconds.values()), 2) for result in results]
    peaks = [result.record.sizes["peak_memory"] for result in results]
    return {
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "peak_mib": round(max(peaks) / (1 << 20)),
        "engine_bytes": first.record.sizes["engine"],
        "weight_bytes": first.record.sizes["weights"],
        "activation_bytes": first.record.sizes["activations"],
        **audited(first),
        "identical": len({result.record.engine_sha256 for result in results}) == 1,
    }


def audited(result: BuildResult) -> dict[str, Any]:
    """What the audit counts."""
    audit = result.audit
    return {
        "int8_planned": audit.count("int8", built=False),
        "int8_built": audit.count("int8", built=True),
        "engine_layers": audit.engine_layers,
        "unpacking_layers": len(audit.unpacking),
        "faults": audit.faults,
        "warnings": len(audit.warnings),
    }


def main() -> None:
    """Export, build and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="resnet23")
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--side", help="of the images; default: 256")
    arguments = parser.parse_args()
    checkpoint = builtin_checkpoint(arguments.arch, arguments.bits)
    if checkpoint is None:
        raise SystemExit(f"no built-in checkpoint of {arguments.arch} at {arguments.bits} bits")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for storage in SIZES:
            bundle = Path(folder) / storage
            export_bundle(checkpoint, bundle, target="rtx", weights=storage, verify=False)
            found[storage] = built(bundle, arguments.runs, arguments.side)
            print(storage, found[storage], flush=True)
    base = found["int8"]["engine_bytes"]
    ratios = {storage: round(one["engine_bytes"] / base, 3) for storage, one in found.items()}
    missed = [f"{s} engine: {ratios[s]} > {bar}" for s, bar in SIZES.items() if ratios[s] > bar]
    for storage, one in found.items():
        if one["faults"] or not one["identical"]:
            missed.append(f"{storage}: {one['faults'] or 'builds differ'}")
    if found["int8"]["median_seconds"] > SECONDS or found["int8"]["peak_mib"] > MIB:
        missed.append("time or memory")
    record(
        "engine_build",
        {
            "label": "built, not run",
            "checkpoint": checkpoint.name,
            "target": "rtx",
            "tensorrt_rtx": _version(),
            "side": arguments.side or "256",
            "cores": len(os.sched_getaffinity(0)),
            "storages": found,
            "engine_over_int8": ratios,
            "bars": {"seconds": SECONDS, "mib": MIB, "engine_over_int8": SIZES},
            "missed": missed,
        },
    )
    if missed:
        raise SystemExit(1)


def _version() -> str:
    from qmdd.runtime.tensorrt_api import load_tensorrt

    return str(load_tensorrt("tensorrt_rtx").__version__)


if __name__ == "__main__":
    main()
