"""The head's mean as GlobalAveragePool: the same mean, and only where it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from qmdd.exporter.passes.pool_head import pool_head


def _graph(axes: list[int] | None, keepdims: int | None) -> gs.Graph:
    x = gs.Variable("x", np.float32, ["N", 6, "H", "W"])
    y = gs.Variable("y", np.float32, ["N", 6])
    inputs = [x] if axes is None else [x, gs.Constant("axes", np.array(axes, dtype=np.int64))]
    attrs = {} if keepdims is None else {"keepdims": keepdims}
    node = gs.Node("ReduceMean", name="mean", attrs=attrs, inputs=inputs, outputs=[y])
    return gs.Graph([node], inputs=[x], outputs=[y], opset=21)


@pytest.mark.parametrize("axes", [[2, 3], [3, 2]])
@pytest.mark.parametrize("optimize", [True, False])
def test_the_mean_is_the_same(
    to_model: Callable[..., Any], run_model: Callable[..., Any], axes: list[int], optimize: bool
) -> None:
    """Whole numbers over 4x8 pixels: sums and quotient are exact, so the means are equal."""
    graph = _graph(axes, 0)
    before = to_model(graph)
    outcome = pool_head(graph)
    assert (outcome.applied, outcome.notes) == (1, [])
    assert [node.op for node in graph.nodes] == ["GlobalAveragePool", "Flatten"]
    graph.outputs[0].dtype, graph.outputs[0].shape = np.dtype(np.float32), ["N", 6]
    x = np.random.default_rng(0).integers(-99, 100, (3, 6, 4, 8)).astype(np.float32)
    after = to_model(graph, opset=17)
    (old,), (new,) = run_model(before, optimize, x=x), run_model(after, optimize, x=x)
    np.testing.assert_array_equal(old, x.mean(axis=(2, 3), dtype=np.float64))
    np.testing.assert_array_equal(new, old)


def test_it_applies_once() -> None:
    """The second run changes nothing and says nothing."""
    graph = _graph([2, 3], 0)
    assert pool_head(graph).applied == 1
    again = pool_head(graph)
    assert (again.applied, again.modified, again.notes) == (0, False, [])
    assert [node.op for node in graph.nodes] == ["GlobalAveragePool", "Flatten"]


@pytest.mark.parametrize(
    ("axes", "keepdims"), [([2, 3], 1), ([2, 3], None), ([2], 0), ([1, 2, 3], 0), (None, 0)]
)
def test_another_mean_is_left_and_noted(axes: list[int] | None, keepdims: int | None) -> None:
    """Kept dimensions are the operator's default; fewer or more axes are another mean."""
    graph = _graph(axes, keepdims)
    outcome = pool_head(graph)
    assert outcome.applied == 0
    assert outcome.notes == ["mean: not a mean over both sides; left as it is"]
    assert [node.op for node in graph.nodes] == ["ReduceMean"]
