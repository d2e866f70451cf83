"""Small graphs in ONNX Runtime, one thread, timed by the thread's own clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Form:
    """A graph that is built node by node, its constants named after what they hold."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._count = 0

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Its name."""
        self._count += 1
        name = f"c{self._count}"
        self.constants[name] = np.asarray(value, dtype=dtype)
        return name

    def __call__(self, op: str, *inputs: str, domain: str = "", **attrs: Any) -> str:
        """Append a node; the name of its only output."""
        self._count += 1
        name = f"t{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], domain=domain, **attrs))
        return name

    def session(self, result: str, kind: int, inputs: Mapping[str, np.ndarray]) -> Any:
        """One thread of ONNX Runtime on the graph that ends in ``result``."""
        import onnxruntime as ort

        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "form",
            [
                value(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for name, a in inputs.items()
            ],
            [value(result, kind, None)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def thread_ms(runs: Sequence[Callable[[], object]], rounds: int, block: int = 8) -> list[float]:
    """Median milliseconds of each of ``runs`` by the thread's clock, taking turns in blocks.

    What other processes take from the processor is not in it; what they take from its caches is,
    the same for all. The first quarter of a block is not counted.
    """
    found: list[list[float]] = [[] for _ in runs]
    turn = list(zip(found, runs, strict=True))
    for _ in range(rounds):
        turn = [*turn[1:], turn[0]]  # nobody always runs behind the same one
        for times, run in turn:
            for index in range(block):
                started = time.thread_time()
                run()
                if index >= block // 4:
                    times.append(1e3 * (time.thread_time() - started))
    return [statistics.median(times) for times in found]
