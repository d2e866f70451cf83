"""The roofline of ``qmdd estimate`` against the clock, on this machine and one thread.

The same method as for a device that is not here: the same kernels (:mod:`qmdd.exporter.workload`)
under the same formula (:mod:`qmdd.exporter.roofline`). Only the roofs do not come from a data
sheet: small models measure them, in the runtime that is estimated and in the same run, before and
after the networks (``_machine.py``); where the two differ, the faster counts. Nothing is fitted to
the networks. Large products of four shapes are measured: the fastest makes the *bound*, as a data
sheet's peak would, the median makes the *estimate* that is held to the bar.

Three estimates are compared with the time of a call and with the runtime's own profile: the
full-precision twin of ResNet-23 in ONNX Runtime and in OpenVINO, and the built-in 2-bit ResNet-23
lowered for OpenVINO, where all its convolutions run in int8 and its codes are exact.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/roofline.py
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import (
    PRODUCTS,
    Compile,
    Machine,
    cache_bytes,
    measure,
    onnxruntime_compile,
    openvino_compile,
)
from _profile import (
    KINDS,
    OnnxruntimeProfile,
    OpenvinoProfile,
    median_ms,
    onnxruntime_run,
    openvino_run,
)
from _record import record

from qmdd.exporter.export import export_bundle
from qmdd.exporter.roofline import Estimate, estimate
from qmdd.exporter.twin import twin_detector, twin_onnx
from qmdd.exporter.workload import layers_of_file
from qmdd.models import DetectorConfig
from qmdd.models.zoo import builtin_checkpoint
from qmdd.runtime.openvino_session import require_openvino

SIDE = 256
#: Kinds of the estimate that the profiles do not tell apart.
_MERGED = {"epilogue": "elementwise"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A network in a runtime: how it is estimated and how it is measured."""

    name: str
    runtime: str
    bundle: str
    precision: str
    fusion: str
    run: Callable[[Path], Callable[[np.ndarray], object]]
    profile: type[OnnxruntimeProfile] | type[OpenvinoProfile]


CASES = (
    Case(
        "FP32, ONNX Runtime",
        "onnxruntime",
        "twin",
        "fp32",
        "single",
        onnxruntime_run,
        OnnxruntimeProfile,
    ),
    Case("FP32, OpenVINO", "openvino", "twin", "fp32", "fused", openvino_run, OpenvinoProfile),
    Case("int8, OpenVINO", "openvino", "integer", "int8", "fused", openvino_run, OpenvinoProfile),
)
#: How a runtime compiles a model, and whether its integer arithmetic is measured too.
RUNTIMES: dict[str, tuple[Compile, bool]] = {
    "onnxruntime": (onnxruntime_compile, False),
    "openvino": (openvino_compile, True),
}


def make_bundles(folder: Path) -> dict[str, Path]:
    """The full-precision twin and the built-in 2-bit checkpoint."""
    (folder / "twin").mkdir()
    (folder / "twin" / "model.onnx").write_bytes(twin_onnx(twin_detector(DetectorConfig())))
    checkpoint = builtin_checkpoint("resnet23", 2)
    export_bundle(checkpoint, folder / "integer", target="openvino", verify=False)
    return {name: folder / name / "model.onnx" for name in ("twin", "integer")}


def compared(
    case: Case,
    path: Path,
    machine: Machine,
    wall: float,
    profile: OnnxruntimeProfile | OpenvinoProfile,
) -> dict[str, Any]:
    """One case's row: estimated and measured milliseconds, in total and by kind."""
    layers = layers_of_file(path, SIDE, case.fusion)
    spent = profile.by_kind(
        sum(layer.kind == "stem" and layer.multiply_adds > 0 for layer in layers)
    )
    bound, usual = (
        estimate(layers, machine.roofs(case.runtime, choose), case.precision)
        for choose in (max, statistics.median)
    )
    by_kind = {name: _by_kind(e) for name, e in (("bound_ms", bound), ("estimated_ms", usual))}
    kinds = {
        kind: {
            **{name: round(times[kind], 3) for name, times in by_kind.items()},
            "measured_ms": round(spent[kind], 3),
            "measured_over_estimated": _ratio(spent[kind], by_kind["estimated_ms"][kind]),
        }
        for kind in KINDS
    }
    return {
        "kernels": len(layers),
        "bound_ms": round(bound.ms, 3),
        "estimated_ms": round(usual.ms, 3),
        "measured_ms": round(wall, 3),
        "profiled_ms": round(sum(spent.values()), 3),
        "measured_over_bound": _ratio(wall, bound.ms),
        "measured_over_estimated": _ratio(wall, usual.ms),
        "limited_ms": {limit: round(ms, 3) for limit, ms in usual.by_limit().items()},
        "kinds": kinds,
    }


def _by_kind(found: Estimate) -> dict[str, float]:
    """Milliseconds by the kinds that profiles tell apart."""
    times = dict.fromkeys(KINDS, 0.0)
    for bound in found.bounds:
        # What prepares a stem's pixels is element-wise work for the profiles.
        kind = "elementwise" if bound.kind == "stem" and not bound.width else bound.kind
        times[_MERGED.get(kind, kind)] += bound.ms
    return times


def _ratio(measured: float, estimated: float) -> float | None:
    return round(measured / estimated, 2) if estimated else None


def _image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 3, SIDE, SIDE), dtype=np.uint8)


def main() -> None:
    """Measure roofs, networks, roofs; record."""
    require_openvino()  # first of all: it reports nothing then
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--bar", type=float, default=1.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_bundles(Path(folder))
        before = {name: measure(c, quantized=q) for name, (c, q) in RUNTIMES.items()}
        image = _image()
        runs = [case.run(paths[case.bundle]) for case in CASES]
        profiles = [case.profile(paths[case.bundle]) for case in CASES]
        turns = [run for pair in zip(runs, (p.run for p in profiles), strict=True) for run in pair]
        walls = median_ms([lambda run=run: run(image) for run in turns], arguments.rounds)[::2]
        after = {name: measure(c, quantized=q) for name, (c, q) in RUNTIMES.items()}
        machines = {name: before[name].faster(after[name]) for name in RUNTIMES}
        rows = {
            case.name: compared(case, paths[case.bundle], machines[case.runtime], wall, profile)
            for case, wall, profile in zip(CASES, walls, profiles, strict=True)
        }
    ratios = {name: row["measured_over_estimated"] for name, row in rows.items()}
    passed = all(1 / arguments.bar <= ratio <= arguments.bar for ratio in ratios.values())
    record(
        "roofline",
        {
            "openvino": importlib.metadata.version("openvino"),
            "checkpoint": builtin_checkpoint("resnet23", 2).name,
            "side": SIDE,
            "threads": 1,
            "rounds": arguments.rounds,
            "products": [list(product) for product in PRODUCTS],
            "machine": {name: machine.to_dict() for name, machine in machines.items()},
            "cache_mib": cache_bytes() / 2**20,
            "cases": rows,
            "bar": arguments.bar,
            "passed": passed,
        },
    )
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
