"""Quantizers on an 8-bit grid as tables: every value of the grid, whatever stands in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
import pytest

from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.base import insert
from qmdd.exporter.passes.engine_lookup import engine_lookup
from qmdd.exporter.passes.engine_thresholds import engine_thresholds

F32 = npt.NDArray[np.float32]


def _quantizer(graph: gs.Graph, x: gs.Tensor, table: F32, layer: str) -> gs.Variable:
    y = gs.Variable(f"{layer}.raw")
    operands = [x, gs.Constant(f"{layer}.thresholds", table)]
    node = gs.Node("MultiThreshold", layer, {"layer": layer}, operands, [y], domain=DOMAIN)
    graph.nodes.append(node)
    return y


def _chain(graph: gs.Graph, x: gs.Tensor, seed: int) -> gs.Variable:
    """Shift, product and PReLU by channel; some factors and slopes are negative."""
    rng = np.random.default_rng(seed)
    by, shift, slope = (rng.normal(0, scale, (1, 3, 1, 1)) for scale in (1, 50 / seed**2, 1))

    def operand(name: str, value: npt.NDArray[Any]) -> gs.Constant:
        return gs.Constant(f"{name}{seed}", value.astype(np.float32))

    x = insert(graph, "Mul", f"by{seed}", [x, operand("factor", by)])
    x = insert(graph, "Add", f"shift{seed}", [x, operand("offset", shift)])
    return insert(graph, "PRelu", f"prelu{seed}", [x, operand("slope", slope)])


def _apply(graph_seed: int, x: F32) -> F32:
    rng = np.random.default_rng(graph_seed)
    by, shift, slope = (
        rng.normal(0, scale, (1, 3, 1, 1)).astype(np.float32)
        for scale in (1, 50 / graph_seed**2, 1)
    )
    x = x * by + shift
    return np.where(x < 0, slope * x, x).astype(np.float32)


def _count(x: F32, table: F32) -> F32:
    reached = x[:, :, None] >= table.T[None, :, :, None, None].swapaxes(1, 2)
    return reached.sum(2).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("chain", [True, False])
@pytest.mark.parametrize("optimize", [True, False])
def test_every_pixel_value_is_looked_up(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    rows: int,
    chain: bool,
    optimize: bool,
) -> None:
    """And the codes of one quantizer by the next."""
    rng = np.random.default_rng(rows)
    first = np.sort(rng.uniform(-100, 200, (rows, 15)).astype(np.float32), axis=1)
    every = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, 3, 1, 1))
    values = every.astype(np.float32)
    between = _count(_apply(1, values) if chain else values, first)
    between = _apply(2, between) if chain else between
    second = np.quantile(between, [[0.2, 0.5, 0.8]]).astype(np.float32)
    image = gs.Variable("image", np.uint8, ["N", 3, "H", "W"])
    graph = gs.Graph([], inputs=[image], outputs=[], opset=17)
    pixels = insert(graph, "Cast", "pixels", [image], {"to": 1})
    x: gs.Tensor = _chain(graph, pixels, 1) if chain else pixels
    codes = _quantizer(graph, x, first, "one")
    y = _quantizer(graph, _chain(graph, codes, 2) if chain else codes, second, "two")
    y.dtype, y.shape = np.float32, ["N", 3, "H", "W"]
    graph.outputs = [y]
    outcome = engine_lookup(graph)
    assert outcome.applied == 2
    assert not engine_lookup(graph).modified
    ops = [node.op for node in graph.nodes]
    assert ops.count("Gather") == 2
    assert not {"MultiThreshold", "PRelu", "Mul"} & set(ops)

    (got,) = run_model(to_model(graph, opset=17), optimize, image=every)
    want = _count(between, second)
    assert np.unique(want).size > 2
    np.testing.assert_array_equal(got, want)


def test_floats_are_compared() -> None:
    """An input that is on no grid keeps its thresholds; so does one behind a constant infinity."""
    x = gs.Variable("x", np.float32, ["N", 3, "H", "W"])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=17)
    graph.outputs = [_quantizer(graph, x, np.float32([[0, 1, 2]]), "q")]
    assert not engine_lookup(graph).modified
    assert engine_thresholds(graph).applied == 1

    image = gs.Variable("image", np.uint8, ["N", 3, "H", "W"])
    graph = gs.Graph([], inputs=[image], outputs=[], opset=17)
    pixels = insert(graph, "Cast", "pixels", [image], {"to": 1})
    infinite = gs.Constant("infinite", np.full((1, 3, 1, 1), np.inf, dtype=np.float32))
    shifted = insert(graph, "Add", "shifted", [pixels, infinite])
    graph.outputs = [_quantizer(graph, shifted, np.float32([[0, 1, 2]]), "q")]
    assert not engine_lookup(graph).modified
