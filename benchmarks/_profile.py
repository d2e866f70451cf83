"""What a runtime itself says that each kind of layer took, beside the time of the whole call."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _machine import openvino_options

#: Kinds that are compared. Runtimes fuse thresholds, shortcuts and concatenations as they like, so
#: these are one kind; layout changes are theirs alone.
KINDS = ("stem", "conv", "elementwise", "pooling", "head", "layout")

#: Kind by the operator's name in ONNX Runtime or OpenVINO; anything else is element-wise.
_OPERATORS = {
    "Conv": "conv",
    "FusedConv": "conv",
    "Convolution": "conv",
    "Gemm": "head",
    "FullyConnected": "head",
    "MatMul": "head",
    "MaxPool": "pooling",
    "AveragePool": "pooling",
    "AvgPool": "pooling",
    "GlobalAveragePool": "pooling",
    "ReduceMean": "pooling",
    "ReorderInput": "layout",
    "ReorderOutput": "layout",
    "Reorder": "layout",
}


def onnxruntime_run(path: Path) -> Callable[[np.ndarray], object]:
    """One thread of ONNX Runtime on a bundle's model."""
    from qmdd.runtime.session import OnnxSession

    return OnnxSession(path, threads=1).run


def onnxruntime_profile(path: Path, image: np.ndarray, runs: int, stems: int) -> dict[str, float]:
    """Milliseconds a run of each kind, from ONNX Runtime's own profile."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        for _ in range(runs + 3):
            session.run(None, {"image": image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("kernel_time")]
    times: dict[tuple[int, str, str], list[float]] = {}
    order: Counter[str] = Counter()
    for event in kernels:
        name, op = event["name"], event["args"]["op_name"]
        if name not in order:
            order[name] = len(order)
        times.setdefault((order[name], name, op), []).append(event["dur"] / 1e3)
    nodes = [(op, statistics.median(found[3:])) for (_, _, op), found in sorted(times.items())]
    return _by_kind(nodes, stems)


def openvino_run(path: Path) -> Callable[[np.ndarray], object]:
    """One thread of OpenVINO on a bundle's model, for images of 256 pixels."""
    return _openvino_request(path, profile=False)[1]


def openvino_profile(path: Path, image: np.ndarray, runs: int, stems: int) -> dict[str, float]:
    """Milliseconds a run of each kind, from OpenVINO's performance counters."""
    request, run = _openvino_request(path, profile=True)
    times: dict[tuple[str, str], list[float]] = {}
    for index in range(runs + 3):
        run(image)
        for node in request.get_profiling_info() if index >= 3 else ():
            spent = 1e3 * node.real_time.total_seconds()
            if spent:
                times.setdefault((node.node_name, node.node_type), []).append(spent)
    return _by_kind([(op, statistics.median(found)) for (_, op), found in times.items()], stems)


def _openvino_request(path: Path, *, profile: bool) -> tuple[Any, Callable[[np.ndarray], object]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, 3, 256, 256])
    compiled = core.compile_model(model, "CPU", openvino_options(profile=profile))
    request = compiled.create_infer_request()
    return request, lambda x: request.infer({0: x}, share_inputs=True, share_outputs=True)


def _by_kind(nodes: list[tuple[str, float]], stems: int) -> dict[str, float]:
    """Sums by kind; of the convolutions, which come in order, the first ``stems`` are the stem."""
    found = dict.fromkeys(KINDS, 0.0)
    for op, spent in nodes:
        kind = _OPERATORS.get(op, "elementwise")
        if kind == "conv" and stems:
            kind, stems = "stem", stems - 1
        found[kind] += spent
    return found


def median_ms(runs: list[Callable[[], object]], rounds: int, block: int = 8) -> list[float]:
    """Median milliseconds of each of ``runs``, taking turns in blocks.

    The first quarter of a block is not counted: it finds the others' data in the cache.
    """
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for times, run in zip(found, runs, strict=True):
            for index in range(block):
                started = time.perf_counter()
                run()
                if index >= block // 4:
                    times.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(times) for times in found]
