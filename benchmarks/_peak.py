"""How fast one thread of this machine multiplies 8-bit integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from _machine import best_seconds
from onnx import TensorProto, helper, numpy_helper

#: Sides of the square products of ONNX Runtime, in and out of the second-level cache.
SIDES = (512, 1024, 2048)


def onnxruntime_gmacs() -> float:
    """10^9 multiply-adds a second of ``MatMulInteger`` (uint8 by int8), the best of large squares.

    No limit of the machine but of a library on it: a tight loop may be faster.
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
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), True)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    codes = rng.integers(0, 4, (side, side)).astype(np.uint8)
    return side**3 / best_seconds(lambda: session.run(None, {"x": codes})) / 1e9


def native_gmacs() -> tuple[dict[str, float], str]:
    """By instruction set, what the native library's own loops reach; or none, and why."""
    try:
        from qmdd.runtime.native import peak_gmacs
    except ImportError:
        return {}, "the native library is not a part of this version"
    found: dict[str, float] = peak_gmacs()
    return found, "" if found else "the native library is not built here"


def peaks() -> dict[str, Any]:
    """Both, by name, in 10^9 multiply-adds a second."""
    native, missing = native_gmacs()
    found = {"onnxruntime MatMulInteger": onnxruntime_gmacs()}
    return {"gmacs": {**found, **native}, "native_absent": missing}
