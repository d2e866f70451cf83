"""What a runtime itself says that each kind of layer took, beside the time of the whole call."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
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


class OnnxruntimeProfile:
    """A bundle's model on one thread of ONNX Runtime, profiled."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        self._folder = tempfile.TemporaryDirectory()
        options.profile_file_prefix = f"{self._folder.name}/profile"
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def run(self, image: np.ndarray) -> None:
        """One inference."""
        self._session.run(None, {"image": image})

    def by_kind(self, stems: int) -> dict[str, float]:
        """Median milliseconds of each kind; ends the profile."""
        events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        self._folder.cleanup()
        times: dict[tuple[str, str], list[float]] = {}  # in the order in which nodes run
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
                key = (event["name"], event["args"]["op_name"])
                times.setdefault(key, []).append(event["dur"] / 1e3)
        return _by_kind(times, stems)


class OpenvinoProfile:
    """A bundle's model on one thread of OpenVINO, for images of 256 pixels, profiled."""

    def __init__(self, path: Path) -> None:
        self._request = _openvino_request(path, profile=True)
        self._times: dict[tuple[str, str], list[float]] = {}

    def run(self, image: np.ndarray) -> None:
        """One inference."""
        self._request.infer({0: image}, share_inputs=True, share_outputs=True)
        for node in self._request.get_profiling_info():
            spent = 1e3 * node.real_time.total_seconds()
            if spent:
                self._times.setdefault((node.node_name, node.node_type), []).append(spent)

    def by_kind(self, stems: int) -> dict[str, float]:
        """Median milliseconds of each kind."""
        return _by_kind(self._times, stems)


def onnxruntime_run(path: Path) -> Callable[[np.ndarray], object]:
    """One thread of ONNX Runtime on a bundle's model."""
    from qmdd.runtime.session import OnnxSession

    return OnnxSession(path, threads=1).run


def openvino_run(path: Path) -> Callable[[np.ndarray], object]:
    """One thread of OpenVINO on a bundle's model, for images of 256 pixels."""
    request = _openvino_request(path, profile=False)
    return lambda x: request.infer({0: x}, share_inputs=True, share_outputs=True)


def _openvino_request(path: Path, *, profile: bool) -> Any:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, 3, 256, 256])
    compiled = core.compile_model(model, "CPU", openvino_options(profile=profile))
    return compiled.create_infer_request()


def _by_kind(times: dict[tuple[str, str], list[float]], stems: int) -> dict[str, float]:
    """Sums of medians by kind; of the convolutions, in order, the first ``stems`` are the stem."""
    found = dict.fromkeys(KINDS, 0.0)
    for (_, op), spent in times.items():
        kind = _OPERATORS.get(op, "elementwise")
        if kind == "conv" and stems:
            kind, stems = "stem", stems - 1
        found[kind] += statistics.median(spent)
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
