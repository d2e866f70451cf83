"""Thresholds among the subnormal numbers: where these are taken for zero, zero keeps its code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
import torch

from qmdd.exporter.errors import ExportError
from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.comparisons import comparison
from qmdd.exporter.passes.lower_thresholds import lower_thresholds
from qmdd.models.float_order import F32
from qmdd.runtime.openvino_session import EXACT, require_openvino

TINY = float(np.finfo(np.float32).tiny)
#: Zeros and normal numbers; the last three lie beside the smallest normal one.
X = np.float32([0.0, -0.0, -1.0, 1.0, -TINY, TINY, np.nextafter(np.float32(TINY), 1)])
#: A step that asks for ``x > 0``, alone and with others; 8 bits, which are searched.
TABLES = {
    "one": [[1e-45]],
    "three": [[-0.5, 1e-45, 0.25]],
    "per channel": [[1e-45, 0.5, 1.0], [-1.0, 1e-40, 1e-38], [-2.0, -1.0, 1e-45]],
    "8 bits": [[*np.linspace(-1, -0.01, 100), 1e-45, *np.linspace(0.01, 1, 154)]],
}


def _graph(table: F32, **options: bool) -> gs.Graph:
    x = gs.Variable("x", np.float32, ["N", 3, "H", "W"])
    y = gs.Variable("y", np.float32, ["N", 3, "H", "W"])
    node = gs.Node("MultiThreshold", domain=DOMAIN, attrs={"layer": "some"},
                   inputs=[x, gs.Constant("table", table)], outputs=[y])  # fmt: skip
    graph = gs.Graph([node], inputs=[x], outputs=[y], opset=21)
    lower_thresholds(graph, **options)
    graph.outputs[0].dtype = np.float32
    return graph


def _want(table: F32) -> np.ndarray:
    rows = np.broadcast_to(table, (3, table.shape[1]))
    return (X[None, :, None] >= rows[:, None, :]).sum(axis=2)


@pytest.mark.parametrize("name", TABLES)
def test_in_openvino(to_model: Callable[..., Any], name: str) -> None:
    pytest.importorskip("openvino", reason="pip install 'qmdd[openvino]'")
    require_openvino()
    import openvino

    table = np.float32(TABLES[name])
    model = to_model(_graph(table, in_bytes=True), opset=21)
    core: Any = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", EXACT)
    x = np.broadcast_to(X, (3, X.size)).reshape(1, 3, 1, -1)
    (codes,) = compiled({"x": np.ascontiguousarray(x)}).values()
    np.testing.assert_array_equal(codes[0, :, 0], _want(table))


@pytest.mark.parametrize("name", TABLES)
def test_in_a_thread_that_flushes_them(
    to_model: Callable[..., Any], run_model: Callable[..., Any], name: str
) -> None:
    """``torch.set_flush_denormal`` is one of many ways in which a process comes to that."""
    table = np.float32(TABLES[name])
    model = to_model(_graph(table), opset=17)
    x = np.broadcast_to(X, (3, X.size)).reshape(1, 3, 1, -1)
    want = _want(table)
    # The first session of a process resets the mode of its thread.
    (codes,) = run_model(model, True, x=np.ascontiguousarray(x))
    np.testing.assert_array_equal(codes[0, :, 0], want)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        (codes,) = run_model(model, True, x=np.ascontiguousarray(x))
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(codes[0, :, 0], want)


def test_what_neither_comparison_saves_is_refused_for_openvino() -> None:
    table = np.float32([[0.0], [1e-45], [1.0]])
    with pytest.raises(ExportError, match="some: it has thresholds at zero and subnormal ones"):
        _graph(table, in_bytes=True)
    _graph(table)


def test_other_tables_are_compared_as_they_were() -> None:
    """Bundles without such thresholds keep their bytes."""
    for table in ([0.0, 1.0], [-np.inf, 0.5], [-1e-45, 2.0], [np.inf]):
        limits, compare = comparison(np.float32(table))
        assert (limits.tolist(), compare) == (np.float32(table).tolist(), "GreaterOrEqual")
