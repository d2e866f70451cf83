"""How fast one thread of this machine multiplies 8-bit integers."""

from __future__ import annotations

import time

import numpy as np
from _machine import best_seconds
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime import native

#: Sides of the square products of ONNX Runtime, in and out of the second-level cache.
SIDES = (512, 1024, 2048)
#: Name of ONNX Runtime's own rate among those of the instruction sets.
MATMUL = "onnxruntime MatMulInteger"
_ROUNDS, _TRIES = 200_000, 100


def onnxruntime_gmacs() -> float:
    """10^9 multiply-adds a second of ``MatMulInteger`` (uint8 by int8), the best of large squares.

    No limit of the machine but of a library on it: it may use wider units than the native kernels
    do (AMX), and stays below what its own instructions could.
    """
    return max(_square(side) for side in SIDES)


def _square(side: int) -> float:
    import onnxruntime

    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (side, side)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "square",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [side, side])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    codes = rng.integers(0, 4, (side, side)).astype(np.uint8)
    return side**3 / best_seconds(lambda: session.run(None, {"x": codes})) / 1e9


def native_gmacs() -> dict[str, float]:
    """By kernel, what its own multiply-add reaches with operands in registers, the best of many.

    None where the native operators are not built.
    """
    if native.library_path() is None:
        return {}
    return {name: max(_rate(name) for _ in range(_TRIES)) for name in native.kernels()}


def _rate(name: str) -> float:
    started = time.thread_time()
    done = native.peak(name, _ROUNDS)
    return done / (time.thread_time() - started) / 1e9


def peaks() -> dict[str, float]:
    """10^9 multiply-adds a second of ONNX Runtime and, where they are built, of every kernel."""
    return {MATMUL: onnxruntime_gmacs(), **native_gmacs()}
