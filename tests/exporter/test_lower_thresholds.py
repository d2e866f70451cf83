"""Thresholds in standard operators: numpy's count for every kind of float, at every width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto

from qmdd.exporter.errors import ExportError
from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.lower_thresholds import CHAIN_LIMIT, lower_thresholds
from qmdd.models.float_order import neighbours

F32 = npt.NDArray[np.float32]
LAYER = "stages.0.0.conv1"


def _graph(table: F32, channels: int, layer: str = LAYER) -> gs.Graph:
    """``y = MultiThreshold(x, table)`` with ``x`` ``[N, channels, H, W]``."""
    x = gs.Variable("x", np.float32, ["N", channels, "H", "W"])
    y = gs.Variable("y", np.float32, ["N", channels, "H", "W"])
    node = gs.Node(
        "MultiThreshold",
        domain=DOMAIN,
        attrs={"layer": layer},
        inputs=[x, gs.Constant("table", np.asarray(table, dtype=np.float32))],
        outputs=[y],
    )
    return gs.Graph([node], inputs=[x], outputs=[y], opset=21)


def _count(table: F32, x: F32) -> npt.NDArray[np.int64]:
    """numpy's count of the thresholds that ``x`` ``[C, m]`` reaches; NaN reaches none."""
    return (x[:, :, None] >= table[:, None, :]).sum(axis=2)


def _hard_inputs(table: F32, channels: int) -> F32:
    """Thresholds, their nearest neighbours, and every special float: ``[channels, m]``."""
    finite = np.where(np.isfinite(table), table, np.float32(0)).astype(np.float32)
    near = neighbours(finite, 2).reshape(table.shape[0], -1)
    specials = np.float32(
        [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-40, -1e-40, 3.4e38, -3.4e38]
    )
    bits = np.random.default_rng(0).integers(0, 2**32, (channels, 500), dtype=np.uint32)
    near = np.broadcast_to(near, (channels, near.shape[1]))
    specials = np.broadcast_to(specials, (channels, specials.size))
    return np.concatenate([near, specials, bits.view(np.float32)], axis=1)


def _random_table(rows: int, top: int, seed: int = 1) -> F32:
    """Ascending, with equal neighbours, a zero, a denormal and infinite ends."""
    rng = np.random.default_rng([rows, top, seed])
    table = rng.normal(0, 1, (rows, top)).astype(np.float32)
    table[0, 0] = 0.0
    table[0, 1] = 1e-42
    table[-1, -1] = table[-1, -2]
    if rows > 1:
        table[1, : top // 2] = -np.inf
        table[2, top // 2 :] = np.inf
    return np.sort(table, axis=1)


@pytest.mark.parametrize("top", [3, 7, 15, 255])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("optimize", [True, False])
def test_codes_are_numpys_count(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    top: int,
    rows: int,
    optimize: bool,
) -> None:
    """2, 3, 4 and 8 bits, one table or one a channel; also the function body says the same."""
    table = _random_table(rows, top)
    graph = _graph(table, 3)
    whole = to_model(graph)
    outcome = lower_thresholds(graph)
    assert (outcome.applied, outcome.notes) == (1, [])
    x = _hard_inputs(table, 3)
    feeds = {"x": x.reshape(1, 3, 1, -1)}
    (lowered,) = run_model(to_model(graph, opset=17), optimize, **feeds)
    (body,) = run_model(whole, optimize, **feeds)
    want = _count(table, x)
    assert {0, top} <= set(want.reshape(-1))
    assert np.unique(want).size >= top // 2
    np.testing.assert_array_equal(lowered[0, :, 0].astype(np.int64), want)
    np.testing.assert_array_equal(body[0, :, 0].astype(np.int64), want)


@pytest.mark.parametrize(
    ("top", "dtype"),
    [(3, TensorProto.INT8), (127, TensorProto.INT8), (255, TensorProto.UINT8)],
)
def test_codes_are_stored_in_one_byte_that_holds_them(
    to_model: Callable[..., Any], top: int, dtype: int
) -> None:
    """The code tensor bears the layer's name and has the zero point's type."""
    graph = _graph(np.sort(np.random.default_rng(2).normal(size=(1, top))), 3)
    lower_thresholds(graph)
    model = to_model(graph)
    (quantize,) = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    (restore,) = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert list(quantize.output) == [f"{LAYER}.codes"]
    assert list(restore.input) == [f"{LAYER}.codes", *quantize.input[1:]]
    held = {t.name: t for t in model.graph.initializer}
    assert held[quantize.input[2]].data_type == dtype
    scale = np.frombuffer(held[quantize.input[1]].raw_data, dtype=np.float32)
    assert scale.tolist() == [1.0]


@pytest.mark.parametrize(("top", "ops"), [(3, 3), (CHAIN_LIMIT, 15), (31, 5), (255, 8)])
def test_few_thresholds_are_compared_one_by_one_and_many_searched(top: int, ops: int) -> None:
    """``n`` comparisons up to 15, ``log2(n + 1)`` beyond; nothing outside the standard domain."""
    graph = _graph(np.sort(np.random.default_rng(3).normal(size=(2, top))), 2)
    lower_thresholds(graph)
    found = [node.op for node in graph.nodes]
    assert found.count("GreaterOrEqual") == ops
    assert found.count("Gather") == (0 if top <= CHAIN_LIMIT else ops - 1)
    assert "MultiThreshold" not in found
    assert all(node.domain in (None, "") for node in graph.nodes)


@pytest.mark.parametrize("top", [3, 255])
def test_it_applies_once(to_model: Callable[..., Any], top: int) -> None:
    """The second run changes nothing and says nothing."""
    graph = _graph(_random_table(3, top), 3)
    assert lower_thresholds(graph).applied == 1
    before = to_model(graph).SerializeToString()
    again = lower_thresholds(graph)
    assert (again.applied, again.modified, again.notes) == (0, False, [])
    assert to_model(graph).SerializeToString() == before


@pytest.mark.parametrize(
    "table",
    [
        [[0.0, 2.0, 1.0]],
        [[0.0, 1.0, 2.0], [3.0, 2.0, 4.0]],
        [[np.inf, -np.inf]],
        [[0.0, np.nan, 1.0]],
        [[np.nan]],
    ],
)
def test_a_table_out_of_order_is_refused(table: list[list[float]]) -> None:
    """Binary search would find other codes in it; NaN has no place in an order."""
    graph = _graph(np.float32(table), len(table))
    with pytest.raises(ExportError, match=f"^{LAYER}: its thresholds are not an ascending const"):
        lower_thresholds(graph)


def test_a_table_that_is_computed_is_refused() -> None:
    graph = _graph(_random_table(1, 3), 3)
    graph.nodes[0].inputs[1] = gs.Variable("elsewhere", np.float32, [1, 3])
    with pytest.raises(ExportError, match=f"^{LAYER}: its thresholds are not an ascending const"):
        lower_thresholds(graph)


@pytest.mark.parametrize(
    ("top", "why"), [(0, "it has no thresholds"), (20, "20 thresholds are not")]
)
def test_a_table_of_another_length_is_refused(top: int, why: str) -> None:
    table = np.arange(top, dtype=np.float32).reshape(1, top)
    with pytest.raises(ExportError, match=f"^{LAYER}: {why}"):
        lower_thresholds(_graph(table, 3))


def test_two_layers_do_not_share_names(
    to_model: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    """Each keeps its own table, zero point and code tensor."""
    graph = _graph(np.float32([[-1.0, 0.0, 1.0]]), 1, "a")
    (first,) = graph.nodes
    middle = first.outputs[0]
    out = gs.Variable("z", np.float32, ["N", 1, "H", "W"])
    other = gs.Constant("other", np.float32([[0.5, 1.5, 2.5]]))
    attrs = {"layer": "b"}
    graph.nodes.append(gs.Node("MultiThreshold", "", attrs, [middle, other], [out], DOMAIN))
    graph.outputs = [out]
    assert lower_thresholds(graph).applied == 2
    x = np.float32([-2, -0.5, 0.5, 2]).reshape(1, 1, 2, 2)
    (codes,) = run_model(to_model(graph), x=x)
    assert codes.reshape(-1).tolist() == [0, 1, 2, 3]
    names = [node.outputs[0].name for node in graph.nodes if node.op == "QuantizeLinear"]
    assert names == ["a.codes", "b.codes"]
