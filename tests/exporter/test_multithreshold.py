"""Our one operator: a body in standard operators that counts like numpy and like the lowering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.multithreshold import DOMAIN, OPSET, add_function


def _model(table: np.ndarray, opset: int) -> onnx.ModelProto:
    channels = 3
    graph = helper.make_graph(
        [helper.make_node("MultiThreshold", ["x", "t"], ["y"], domain=DOMAIN, layer="some")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", channels, "H", "W"])],
        [numpy_helper.from_array(table.astype(np.float32), "t")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize("opset", [21, 23, 25])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("optimize", [True, False])
def test_the_body_counts_the_thresholds_reached(
    run_model: Callable[..., Any], opset: int, rows: int, optimize: bool
) -> None:
    """Paper Eq. 3 with ``>=``: at a threshold, beside it, at zero of either sign, NaN, infinity."""
    rng = np.random.default_rng(rows)
    table = np.sort(rng.normal(0, 1, (rows, 7)).astype(np.float32), axis=1)
    table[:, 3] = np.maximum(table[:, 2], 0)
    table = np.sort(table, axis=1)
    model = _model(table, opset)
    add_function(model)
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), True)
    onnx.checker.check_model(model, full_check=True)
    at = np.broadcast_to(table, (3, 7))
    specials = np.broadcast_to(np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0]), (3, 5))
    beside = [np.nextafter(at, np.float32(side)) for side in (-np.inf, np.inf)]
    x = np.concatenate([at, *beside, specials], axis=1).astype(np.float32)
    (codes,) = run_model(model, optimize, x=x.reshape(1, 3, 2, 13))
    want = (x[:, :, None] >= at[:, None, :]).sum(axis=2)
    np.testing.assert_array_equal(codes.reshape(3, 26).astype(np.int64), want)


def test_the_function_is_added_once() -> None:
    """Twice is once; the import of its domain comes along."""
    model = _model(np.zeros((1, 3)), 21)
    for _ in range(2):
        add_function(model)
    assert [f.name for f in model.functions] == ["MultiThreshold"]
    assert [(i.domain, i.version) for i in model.opset_import] == [("", 21), (DOMAIN, OPSET)]
    assert {node.domain for node in model.functions[0].node} == {""}
