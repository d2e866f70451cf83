"""Which form of thresholds an engine wants: kernels, build time and bytes, by their number.

Four INT8 convolutions, each behind a quantizer, are built for an RTX card in every form: a chain
of comparisons, one comparison broadcast over four dimensions, and the same over five. The passes
choose by what stands in the result: see ``exporter/passes/engine_thresholds.py``. *Built, not run*.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from _record import record

from qmdd.exporter.engine.process import run_builder
from qmdd.exporter.engine.request import BuildRequest, Profile
from qmdd.exporter.passes.base import insert, tidy, unit_scale
from qmdd.exporter.passes.engine_blob import weight_zero
from qmdd.exporter.passes.engine_thresholds import (
    CHAIN_LIMIT,
    below,
    compare_at_once,
    compare_each,
)
from qmdd.exporter.targets import find_target

TARGET = "rtx-ampere"
CHANNELS, SIDE, LAYERS = 64, 56, 4
COUNTS = (1, 3, 7, 15, 255)
Form = Callable[[gs.Graph, str, gs.Tensor, np.ndarray], gs.Tensor]


def five_dimensions(graph: gs.Graph, layer: str, x: gs.Tensor, table: np.ndarray) -> gs.Tensor:
    """As ``compare_at_once``, both sides of the image kept apart."""
    limit, _ = below(table)
    threshold = gs.Constant(f"{layer}.table", limit.T.reshape(1, *limit.T.shape, 1, 1).copy())
    axis = gs.Constant(f"{layer}.axis", np.array([1], dtype=np.int64))
    wide = insert(graph, "Unsqueeze", f"{layer}.wide", [x, axis])
    reached = insert(graph, "Greater", f"{layer}.reached", [wide, threshold])
    ones = insert(graph, "Cast", f"{layer}.ones", [reached], {"to": 1})
    return insert(graph, "ReduceSum", f"{layer}.count", [ones, axis], {"keepdims": 0})


FORMS: dict[str, Form] = {
    "chain": compare_each,
    "four dimensions": compare_at_once,
    "five dimensions": five_dimensions,
}


def network(form: Form, count: int, per_channel: bool) -> bytes:
    """``LAYERS`` times thresholds, INT8 convolution, product and sum; an ONNX file."""
    rng = np.random.default_rng(0)
    image = gs.Variable("image", np.uint8, ["N", 3, "H", "W"])
    graph = gs.Graph([], inputs=[image], outputs=[], opset=17)
    first = gs.Constant("first", rng.normal(size=(CHANNELS, 3, 1, 1)).astype(np.float32))
    x = insert(graph, "Conv", "stem", [insert(graph, "Cast", "pixels", [image], {"to": 1}), first])
    scale, zero = unit_scale(graph), weight_zero(graph)
    for index in range(LAYERS):
        name = f"layer{index}"
        table = np.sort(rng.normal(size=(CHANNELS if per_channel else 1, count)), axis=1)
        codes = form(graph, name, x, table.astype(np.float32))
        quantised = insert(graph, "QuantizeLinear", f"{name}.codes", [codes, scale, zero])
        values = insert(graph, "DequantizeLinear", f"{name}.values", [quantised, scale, zero])
        held = rng.integers(-3, 4, size=(CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
        weight = insert(
            graph,
            "DequantizeLinear",
            f"{name}.weight",
            [gs.Constant(f"{name}.held", held), scale, zero],
        )
        acc = insert(graph, "Conv", f"{name}.acc", [values, weight], {"pads": [1] * 4})
        by, to = (
            gs.Constant(f"{name}.{what}", rng.normal(size=(1, CHANNELS, 1, 1)).astype(np.float32))
            for what in ("by", "to")
        )
        x = insert(graph, "Add", f"{name}.out", [insert(graph, "Mul", f"{name}.m", [acc, by]), to])
    pooled = insert(graph, "GlobalAveragePool", "pooled", [x])
    flat = insert(graph, "Flatten", "flat", [pooled], {"axis": 1})
    last = gs.Constant("last", np.ones((CHANNELS, 1), dtype=np.float32))
    axis = gs.Constant("axis", np.array([1], dtype=np.int64))
    logit = insert(graph, "Squeeze", "logit", [insert(graph, "Gemm", "fc", [flat, last]), axis])
    logit.dtype, logit.shape = np.float32, ["N"]
    graph.outputs = [logit]
    tidy(graph)
    model = gs.export_onnx(graph)
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


def built(model: bytes, runs: int) -> dict[str, Any]:
    """What ``runs`` builds of one file take and give."""
    engine = find_target(TARGET).engine
    assert engine is not None
    shape = (1, 3, SIDE, SIDE)
    seconds, found = [], {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "model.onnx"
            path.write_bytes(model)
            request = BuildRequest(
                engine.backend,
                str(path),
                name,
                engine.compute_capabilities,
                engine.versions,
                engine.workspace_mib << 20,
                Profile(shape, shape, shape),
            )
            found = run_builder(request, timeout=600, memory_limit=8 << 30, report=lambda *_: None)
            seconds.append(sum(found["seconds"].values()))
            size = sum(p.stat().st_size for p in Path(name).glob("*.engine"))
    kinds = [layer["kind"] for layer in found["layers"]]
    return {
        "seconds": round(statistics.median(seconds), 2),
        "layers": len(kinds),
        "kernels": len([k for k in kinds if k != "convolution"]),
        "bytes": size,
    }


def main() -> None:
    """Build every form and say which is the smallest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for count in COUNTS:
        for per_channel in (False, True):
            row: dict[str, Any] = {"thresholds": count, "per_channel": per_channel}
            for name, form in FORMS.items():
                row[name] = built(network(form, count, per_channel), arguments.runs)
            rows.append(row)
            print(row, flush=True)
    record(
        "threshold_forms",
        {
            "label": "built, not run",
            "target": TARGET,
            "network": f"{LAYERS} convolutions of {CHANNELS} channels, {SIDE} pixels",
            "chain_limit": CHAIN_LIMIT,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
