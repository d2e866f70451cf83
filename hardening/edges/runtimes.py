"""One quantizer's table in every runtime that is here: the codes of floats, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.multithreshold import DOMAIN, OPSET
from qmdd.exporter.passes.byte_thresholds import byte_thresholds
from qmdd.exporter.passes.engine_thresholds import engine_thresholds
from qmdd.exporter.passes.lower_thresholds import lower_thresholds
from qmdd.models.float_order import F32
from qmdd.runtime import native
from qmdd.runtime.openvino_session import EXACT, require_openvino

#: Codes of float32 ``[m]``, ``m`` a multiple of :data:`CHANNELS`, as whole numbers of any type.
CodesOf = Callable[[F32], np.ndarray]
#: Channels that floats are laid out in: a whole number of vectors of every kernel.
CHANNELS = 64


def runtimes(table: F32, threads: int = 1) -> dict[str, CodesOf]:
    """By the runtime's name, what gives the codes of a table ``[n]``."""
    found: dict[str, CodesOf] = {
        "numpy": lambda x: (x[:, None] >= table).sum(axis=1),
        "ONNX Runtime": _in_onnxruntime(_lowered(table, lower_thresholds), threads),
        "ONNX Runtime, no optimiser": _in_onnxruntime(
            _lowered(table, lower_thresholds), threads, optimise=False
        ),
        "ONNX Runtime, bytes": _in_onnxruntime(_lowered(table, byte_thresholds), threads),
        "ONNX Runtime, engine form": _in_onnxruntime(_lowered(table, engine_thresholds), threads),
    }
    for kernels in native.kernels() if native.library_path() else ():
        found[f"native, {kernels}"] = _in_native(table, kernels, threads)
    if find_spec("openvino"):
        found["OpenVINO"] = _in_openvino(table, threads)
    if find_spec("qonnx"):
        found["QONNX"] = _in_qonnx(table)
    return found


def _lowered(table: F32, lower: Callable[..., Any], **options: bool) -> bytes:
    x = gs.Variable("x", np.float32, ["N", CHANNELS, "H", "W"])
    y = gs.Variable("y", np.float32, ["N", CHANNELS, "H", "W"])
    node = gs.Node("MultiThreshold", domain=DOMAIN, attrs={"layer": "some"},
                   inputs=[x, gs.Constant("table", table[None])], outputs=[y])  # fmt: skip
    graph = gs.Graph([node], inputs=[x], outputs=[y], opset=21)
    lower(graph, **options)
    graph.outputs[0].dtype = np.float32
    model = gs.export_onnx(graph)
    model.ir_version = 10
    return bytes(model.SerializeToString())


def _planes(x: F32) -> F32:
    return x.reshape(1, CHANNELS, -1, 64) if x.size % (CHANNELS * 64) == 0 else x.reshape(
        1, CHANNELS, 1, -1
    )  # fmt: skip


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return options


def _in_onnxruntime(model: bytes, threads: int, *, optimise: bool = True) -> CodesOf:
    import onnxruntime

    options = _options(threads)
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"x": _planes(x)})[0]).reshape(-1)


def _in_native(table: F32, kernels: str, threads: int) -> CodesOf:
    import onnxruntime

    node = helper.make_node(
        "Threshold", ["x", "table"], ["y"], domain=DOMAIN, out_halo=0, out_pad_code=0
    )
    graph = helper.make_graph(
        [node],
        "thresholds",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * 4)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(table[None].copy(), "table")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = _options(threads)
    options.register_custom_ops_library(str(native.require_library()))
    before = os.environ.get(native.KERNELS_VARIABLE)
    os.environ[native.KERNELS_VARIABLE] = kernels
    try:
        session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )
    finally:
        if before is None:
            del os.environ[native.KERNELS_VARIABLE]
        else:
            os.environ[native.KERNELS_VARIABLE] = before

    def codes(x: F32) -> np.ndarray:
        rows = x.reshape(1, -1, 1, CHANNELS)
        return np.asarray(session.run(None, {"x": rows})[0]).reshape(-1)

    return codes


def _in_openvino(table: F32, threads: int) -> CodesOf:
    require_openvino()
    openvino: Any = import_module("openvino")
    core = openvino.Core()
    model = core.read_model(_lowered(table, lower_thresholds, in_bytes=True))
    compiled = core.compile_model(model, "CPU", {**EXACT, "INFERENCE_NUM_THREADS": threads})
    return lambda x: np.asarray(next(iter(compiled({"x": _planes(x)}).values()))).reshape(-1)


def _in_qonnx(table: F32) -> CodesOf:
    execute: Any = import_module("qonnx.custom_op.general.multithreshold").multithreshold

    def codes(x: F32) -> np.ndarray:
        found = execute(x.reshape(1, 1, -1, 1), table[None], 1.0, 0.0)
        return np.asarray(found).reshape(-1)

    return codes
