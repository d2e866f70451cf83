"""Thresholds for TensorRT: numpy's count for every kind of float, and INT8 right before a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qmdd.exporter.errors import ExportError
from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.base import insert
from qmdd.exporter.passes.engine_thresholds import (
    CHAIN_LIMIT,
    below,
    compare_at_once,
    compare_each,
    engine_thresholds,
)
from qmdd.exporter.passes.engine_weights import engine_weights
from qmdd.models.float_order import neighbours

F32 = npt.NDArray[np.float32]
TINY = float(np.finfo(np.float32).tiny)
I64 = npt.NDArray[np.int64]
LAYER = "stages.0.0.conv1"


def _quantizer(table: F32, channels: int) -> gs.Graph:
    x = gs.Variable("x", np.float32, ["N", channels, "H", "W"])
    y = gs.Variable("y", np.float32, ["N", channels, "H", "W"])
    operands = [x, gs.Constant("table", table)]
    node = gs.Node("MultiThreshold", "q", {"layer": LAYER}, operands, [y], domain=DOMAIN)
    return gs.Graph([node], inputs=[x], outputs=[y], opset=17)


def _network(
    table: F32, weights: list[I64], *, zero: float = 0, pad: int = 1, group: int = 1
) -> gs.Graph:
    """Convolutions with integer ``weights``, side by side, on ``codes - zero`` of one quantizer."""
    channels = weights[0].shape[1] * group
    graph = _quantizer(table, channels)
    codes = graph.outputs[0]
    graph.outputs = []
    if zero:
        level = gs.Constant("level", np.array(zero, dtype=np.float32))
        codes = insert(graph, "Sub", "centred", [codes, level])
    one = gs.Constant("unit", np.array(1, dtype=np.float32))
    for number, weight in enumerate(weights):
        held = gs.Constant(f"conv{number}.codes", weight.astype(np.int8))
        values = insert(graph, "DequantizeLinear", f"w{number}", [held, one])
        attrs = {"pads": [pad] * 4, "strides": [1, 1], "group": group}
        acc = insert(graph, "Conv", f"acc{number}", [codes, values], attrs)
        acc.dtype, acc.shape = np.float32, ["N", weight.shape[0], f"P{number}", f"Q{number}"]
        graph.outputs.append(acc)
    return graph


def _table(rows: int, top: int, *, special: bool = True) -> F32:
    rng = np.random.default_rng([rows, top])
    table = rng.normal(0, 1, (rows, top)).astype(np.float32)
    if special and top > 2:
        table[0, :2] = 0.0, 1e-42
        table[-1, -1] = table[-1, -2]
        if rows > 1:
            table[1, : top // 2] = -np.inf
            table[2, top // 2 :] = np.inf
    return np.sort(table, axis=1)


def _hard_inputs(table: F32, channels: int) -> F32:
    finite = np.where(np.isfinite(table), table, np.float32(0)).astype(np.float32)
    near = neighbours(finite, 2).reshape(table.shape[0], -1)
    near = np.broadcast_to(near, (channels, near.shape[1]))
    odd = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-40, 3.4e38, -3.4e38])
    odd = np.broadcast_to(odd, (channels, odd.size))
    bits = np.random.default_rng(0).integers(0, 2**32, (channels, 500), dtype=np.uint32)
    return np.concatenate([near, odd, bits.view(np.float32)], axis=1)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("top", [1, 3, 7, 15, 255])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("optimize", [True, False])
def test_codes_are_numpys_count(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    top: int,
    rows: int,
    special: bool,
    optimize: bool,
) -> None:
    """1, 2, 3, 4 and 8 bits, one table or one a channel, with and without subnormal thresholds."""
    table = _table(rows, top, special=special)
    graph = _quantizer(table, 3)
    assert engine_thresholds(graph).applied == 1
    x = _hard_inputs(table, 3)
    (got,) = run_model(to_model(graph, opset=17), optimize, x=x.reshape(1, 3, 1, -1))
    want = (x[:, :, None] >= table[:, None, :]).sum(axis=2)
    assert {0, top} <= set(want.reshape(-1))
    np.testing.assert_array_equal(got[0, :, 0].astype(np.int64), want)


@settings(max_examples=60)
@given(
    arrays(np.float32, 9, elements=st.floats(width=32, allow_nan=False)),
    st.lists(st.floats(width=32), min_size=1, max_size=20),
)
def test_below_counts_the_same(raw: F32, points: list[float]) -> None:
    """``x > u`` or ``x >= u`` is ``x >= t``, on thresholds, their neighbours and anything else."""
    table = np.sort(raw)[None]
    x = np.concatenate([np.float32(points), table[0], neighbours(table[0], 1).reshape(-1)])
    limit, strict = below(table)
    compare = np.greater if strict else np.greater_equal
    got = compare(x[:, None], limit).sum(1)
    np.testing.assert_array_equal(got, (x[:, None] >= table).sum(1))


@pytest.mark.parametrize("threshold", [0.0, 1e-45, 1e-42, -1e-45, TINY, -TINY, 1.0, -1.0])
def test_zero_and_normal_numbers_are_right_where_subnormal_ones_are_flushed(
    threshold: float,
) -> None:
    """A GPU may take subnormal numbers, the limit or the input, for zero."""
    table = np.float32([[threshold]])
    limit, strict = below(table)
    x = np.float32([0.0, -0.0, TINY, -TINY, 1.0, -1.0, 2.0, np.nextafter(np.float32(TINY), 1)])
    compare = np.greater if strict else np.greater_equal
    flushed = np.where(np.abs(limit) < TINY, np.float32(0), limit)
    np.testing.assert_array_equal(compare(x, flushed[0]), x >= table[0])
    assert strict == (threshold not in (0.0, -1e-45))


@pytest.mark.parametrize("top", [CHAIN_LIMIT, CHAIN_LIMIT + 1])
def test_the_form_follows_the_number_of_thresholds(top: int) -> None:
    """A comparison each up to the limit, one comparison with a sum above."""
    graph = _quantizer(_table(1, top, special=False), 3)
    engine_thresholds(graph)
    ops = [node.op for node in graph.nodes]
    assert ops.count("Greater") == (top if top <= CHAIN_LIMIT else 1)
    assert ("ReduceSum" in ops) == (top > CHAIN_LIMIT)


@pytest.mark.parametrize("form", [compare_each, compare_at_once])
@pytest.mark.parametrize("top", [3, 15])
def test_both_forms_count_alike(
    to_model: Callable[..., Any], run_model: Callable[..., Any], form: Any, top: int
) -> None:
    """At any width, on images that are not square."""
    table = _table(3, top)
    graph = _quantizer(table, 3)
    count = form(graph, LAYER, graph.inputs[0], table)
    count.dtype, count.shape = np.float32, ["N", 3, "H", "W"]
    graph.outputs = [count]
    graph.cleanup().toposort()
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 7)).astype(np.float32)
    (got,) = run_model(to_model(graph, opset=17), x=x)
    want = (x[:, :, None] >= table.T[None, :, :, None, None].swapaxes(1, 2)).sum(2)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("top", "zero", "pad"),
    [
        (3, 0, 1),
        (15, 0, 0),
        (15, 7, 1),
        (127, 0, 1),
        (255, 0, 1),
        (255, 0, 0),
        (255, 128, 1),
        (255, 200, 1),
        (255, 3, 1),
        (127, 100, 1),
        (15, 15, 1),
    ],
)
@pytest.mark.parametrize("optimize", [True, False])
def test_sums_are_exact_whatever_the_codes_need(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    top: int,
    zero: int,
    pad: int,
    optimize: bool,
) -> None:
    """Codes beyond INT8 are shifted and padded explicitly; sums are those of the codes."""
    rng = np.random.default_rng([top, zero])
    table = np.sort(rng.normal(size=(1, top)).astype(np.float32), axis=1)
    weights = [rng.integers(-127, 128, size=(4, 3, 3, 3)) for _ in range(2)]
    graph = _network(table, weights, zero=zero, pad=pad)
    engine_weights("int8", "int8", None)(graph)
    engine_thresholds(graph)
    model = to_model(graph, opset=17)
    for node in model.graph.node:
        if node.op_type == "Conv":
            (data,) = [n for n in model.graph.node if n.output[0] == node.input[0]]
            assert data.op_type == "DequantizeLinear"
    x = rng.normal(size=(2, 3, 6, 9)).astype(np.float32)
    got = run_model(model, optimize, x=x)
    codes = (x[:, :, None] >= table[0][:, None, None]).sum(2)
    for found, weight in zip(got, weights, strict=True):
        want = convolve(codes - zero, weight, 1, (pad,) * 4)
        np.testing.assert_array_equal(found, want)


def test_depthwise_layers_read_floats(
    to_model: Callable[..., Any], run_model: Callable[..., Any], convolve: Callable[..., I64]
) -> None:
    """In INT8 TensorRT would pad every channel to a block of 32 x 32."""
    rng = np.random.default_rng(5)
    table = _table(1, 3, special=False)
    weight = rng.integers(-3, 4, size=(6, 1, 3, 3))
    graph = _network(table, [weight], group=6)
    engine_weights("int4", "int8", None)(graph)
    engine_thresholds(graph)
    model = to_model(graph, opset=17)
    assert "QuantizeLinear" not in [node.op_type for node in model.graph.node]
    assert any(f"{LAYER}.codes" in node.output for node in model.graph.node)
    x = rng.normal(size=(1, 6, 5, 5)).astype(np.float32)
    (got,) = run_model(model, x=x)
    codes = (x[:, :, None] >= table[0][:, None, None]).sum(2)
    for channel in range(6):
        own = slice(channel, channel + 1)
        want = convolve(codes[:, own], weight[own], 1, (1, 1, 1, 1))
        np.testing.assert_array_equal(got[:, own], want)


@pytest.mark.parametrize("table", [[[1.0, 0.0]], [[np.nan, 1.0]], [[]]])
def test_what_is_no_ascending_table_is_refused(table: list[list[float]]) -> None:
    """With the layer's name."""
    graph = _quantizer(np.float32(table).reshape(1, -1), 3)
    with pytest.raises(ExportError, match=f"{LAYER}: its thresholds are not an ascending constant"):
        engine_thresholds(graph)


def test_it_applies_once() -> None:
    """The second run changes nothing."""
    graph = _quantizer(_table(1, 3), 3)
    engine_thresholds(graph)
    assert not engine_thresholds(graph).modified
