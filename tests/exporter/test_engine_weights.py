"""Weights as an engine holds them: the same sums from INT8, INT4 and two codes to a nibble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto

from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.base import insert
from qmdd.exporter.passes.codebook import EXACT_LIMIT
from qmdd.exporter.passes.engine_products import HALF_LIMIT, why_no_product
from qmdd.exporter.passes.engine_thresholds import engine_thresholds
from qmdd.exporter.passes.engine_weights import engine_weights
from qmdd.exporter.targets import find_target

I64 = npt.NDArray[np.int64]
RTX = find_target("rtx").engine
ORIN = find_target("orin-nano").engine


def _graph(weights: list[I64], top: int, pad: int = 0, stride: int = 1) -> gs.Graph:
    """Convolutions side by side on the codes of one quantizer that counts ``x >= 1, 2 .. top``."""
    channels = weights[0].shape[1]
    x = gs.Variable("x", np.float32, ["N", channels, "H", "W"])
    table = gs.Constant("table", np.arange(1, top + 1, dtype=np.float32).reshape(1, -1))
    graph = gs.Graph([], inputs=[x], outputs=[], opset=21)
    codes = gs.Variable("codes")
    node = gs.Node("MultiThreshold", "q", {"layer": "act"}, [x, table], [codes], domain=DOMAIN)
    graph.nodes.append(node)
    one = gs.Constant("unit", np.array(1, dtype=np.float32))
    for number, weight in enumerate(weights):
        small = int(np.abs(weight).max()) < 128
        held = gs.Constant(f"conv{number}.codes", weight.astype(np.int8 if small else np.int16))
        values = insert(graph, "DequantizeLinear", f"w{number}", [held, one])
        attrs = {"pads": [pad] * 4, "strides": [stride] * 2, "group": 1}
        acc = insert(graph, "Conv", f"acc{number}", [codes, values], attrs)
        acc.dtype, acc.shape = np.float32, ["N", weight.shape[0], f"P{number}", f"Q{number}"]
        graph.outputs.append(acc)
    return graph


def _levels(bits: int, odd: bool) -> I64:
    top = 2**bits - 1
    return np.arange(-top, top + 1, 2) if odd else np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))


def _run(
    run_model: Callable[..., Any],
    to_model: Callable[..., onnx.ModelProto],
    graph: gs.Graph,
    x: I64,
    optimize: bool = True,
) -> list[npt.NDArray[Any]]:
    engine_thresholds(graph)
    found: list[npt.NDArray[Any]] = run_model(
        to_model(graph, opset=21), optimize, x=x.astype(np.float32)
    )
    return found


@pytest.mark.parametrize("storage", ["int8", "int4", "int2"])
@pytest.mark.parametrize("odd", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("optimize", [True, False])
def test_every_storage_gives_the_same_sums(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    storage: str,
    odd: bool,
    bits: int,
    optimize: bool,
) -> None:
    """Layers of several sizes out of one constant, an odd number of weights among them."""
    rng = np.random.default_rng([bits, odd])
    levels = _levels(bits, odd)
    weights = [rng.choice(levels, size=(count, 3, 3, 3)) for count in (4, 5, 1)]
    for weight in weights:
        weight.reshape(-1)[: levels.size] = levels[: weight.size]
    top = 2**bits - 1
    graph = _graph(weights, top, pad=1)
    outcome = engine_weights(storage, "int8", RTX)(graph)
    assert outcome.applied == 3
    widened = storage == "int2" and bits > 2
    assert bool([note for note in outcome.notes if "widened from int2 to int4" in note]) == widened
    x = rng.integers(0, top + 1, size=(2, 3, 7, 5))
    found = _run(run_model, to_model, graph, x, optimize)
    for got, weight in zip(found, weights, strict=True):
        np.testing.assert_array_equal(got, convolve(x, weight, 1, (1, 1, 1, 1)))


@pytest.mark.parametrize(("storage", "bits_each"), [("int8", 8), ("int4", 4), ("int2", 2)])
def test_a_weight_takes_the_bits_of_its_storage(
    to_model: Callable[..., onnx.ModelProto], storage: str, bits_each: int
) -> None:
    """All layers together, of 2-bit codes; narrow ones lie in one constant."""
    rng = np.random.default_rng(0)
    weights = [rng.choice([-3, -1, 1, 3], size=(8, 16, 3, 3)) for _ in range(3)]
    graph = _graph(weights, 3)
    engine_weights(storage, "int8", RTX)(graph)
    engine_thresholds(graph)
    model = to_model(graph, opset=21)
    large = [t for t in model.graph.initializer if len(t.raw_data) > 200]
    assert sum(len(t.raw_data) for t in large) * 8 == 3 * 8 * 16 * 9 * bits_each
    assert len(large) == (3 if storage == "int8" else 1)
    kinds = {TensorProto.INT8} if storage == "int8" else {TensorProto.INT4}
    assert {t.data_type for t in large} == kinds


def test_nothing_stands_between_dequantise_and_convolution(
    to_model: Callable[..., onnx.ModelProto],
) -> None:
    """The rule that TensorRT breaks silently, for the storage with the most nodes."""
    graph = _graph([np.random.default_rng(0).choice([-1, 1], size=(8, 4, 3, 3))], 1)
    engine_weights("int2", "int8", RTX)(graph)
    engine_thresholds(graph)
    model = to_model(graph, opset=21)
    makers = {out: node for node in model.graph.node for out in node.output}
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [makers[name].op_type for name in conv.input] == ["DequantizeLinear"] * 2
    held = {t.name: t.data_type for t in model.graph.initializer}
    for name in conv.input:
        assert held[makers[name].input[2]] == TensorProto.INT8


def test_a_storage_that_the_target_lacks_is_widened() -> None:
    """With a note, not an error."""
    graph = _graph([np.full((2, 2, 1, 1), 3)], 3)
    outcome = engine_weights("int2", "int8", ORIN)(graph)
    assert outcome.notes == ["weights widened from int2 to int8: no other fits this target"]
    (held,) = [t for t in graph.tensors().values() if t.name.endswith(".weight.int8")]
    assert np.asarray(held.values).dtype == np.int8


@pytest.mark.parametrize("optimize", [True, False])
def test_weights_and_sums_beyond_the_limit_are_two_convolutions(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    optimize: bool,
) -> None:
    """8 bits: 255 * 127 * 3 * 3 * 64 is beyond 2^24; so are weights that INT8 does not hold."""
    rng = np.random.default_rng(3)
    weights = [
        rng.integers(-127, 128, size=(3, 64, 3, 3)),
        np.sign(rng.integers(-1, 2, size=(2, 64, 3, 3))) * 300,
    ]
    weights[0][0] = 127
    graph = _graph(weights, 255, pad=1)
    assert int(np.abs(weights[0]).sum(axis=(1, 2, 3)).max()) * 255 > EXACT_LIMIT
    engine_weights("int8", "int8", RTX)(graph)
    assert sum(node.op == "Conv" for node in graph.nodes) == 4
    x = rng.integers(0, 256, size=(1, 64, 5, 5))
    found = _run(run_model, to_model, graph, x, optimize)
    for got, weight in zip(found, weights, strict=True):
        want = convolve(x, weight, 1, (1, 1, 1, 1))
        # Each part is exact; beyond 2^24 the sum of the two is rounded once.
        np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("optimize", [True, False])
def test_a_small_1x1_layer_becomes_an_int4_product(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    stride: int,
    optimize: bool,
) -> None:
    """In half precision, whose sums stay exact; ONNX Runtime must not round its activations."""
    rng = np.random.default_rng(4)
    weights = [rng.choice([-3, -1, 1, 3], size=(8, 192, 1, 1)), rng.integers(-1, 2, (4, 192, 3, 3))]
    graph = _graph(weights, 3, stride=stride)
    outcome = engine_weights("int8", "int4", ORIN)(graph)
    assert outcome.notes == ["conv1: stays INT8: not a 1x1 convolution"]
    assert sum(node.op == "MatMul" for node in graph.nodes) == 1
    x = rng.integers(0, 4, size=(2, 192, 7, 9))
    found = _run(run_model, to_model, graph, x, optimize)
    for got, weight in zip(found, weights, strict=True):
        np.testing.assert_array_equal(got, convolve(x, weight, stride, (0, 0, 0, 0)))


@pytest.mark.parametrize(
    ("shape", "value", "top", "why"),
    [
        ((4, 64, 3, 3), 1, 3, "not a 1x1 convolution"),
        ((4, 48, 1, 1), 1, 3, "48 input channels are no multiple of 64"),
        ((4, 64, 1, 1), 15, 3, "its weights reach 15, beyond INT4"),
        ((4, 256, 1, 1), 3, 3, "its sums reach 2304"),
        ((4, 128, 1, 1), 3, 3, ""),
    ],
)
def test_what_no_product_holds_exactly(
    shape: tuple[int, ...], value: int, top: int, why: str
) -> None:
    """Half precision counts to 2048 without a gap."""
    conv = gs.Node("Conv", attrs={"pads": [0] * 4})
    found = why_no_product(conv, np.full(shape, value), top)
    assert found.startswith(why)
    assert bool(found) == bool(why)
    assert np.float16(HALF_LIMIT) + np.float16(1) == HALF_LIMIT


def test_rtx_holds_int4_convolutions_so_it_needs_no_products() -> None:
    """``--precision int4`` there is a storage."""
    graph = _graph([np.full((4, 64, 1, 1), 3)], 3)
    engine_weights("int4", "int4", RTX)(graph)
    assert "MatMul" not in [node.op for node in graph.nodes]


@pytest.mark.parametrize("optimize", [True, False])
def test_depthwise_weights_beyond_int8_are_two_convolutions(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    optimize: bool,
) -> None:
    """Odd codes of 8 bits reach 255; channels keep their order."""
    rng = np.random.default_rng(8)
    weight = rng.integers(-128, 128, size=(6, 1, 3, 3)) * 2 + 1
    graph = _graph([weight], 15, pad=1)
    (conv,) = [node for node in graph.nodes if node.op == "Conv"]
    conv.attrs["group"] = 6
    graph.inputs[0].shape[1] = 6
    engine_weights("int8", "int8", RTX)(graph)
    assert sum(node.op == "Conv" for node in graph.nodes) == 2
    x = rng.integers(0, 16, size=(1, 6, 5, 5))
    (got,) = _run(run_model, to_model, graph, x, optimize)
    for channel in range(6):
        own = slice(channel, channel + 1)
        want = convolve(x[:, own], weight[own], 1, (1, 1, 1, 1))
        np.testing.assert_array_equal(got[:, own], want)


@pytest.mark.parametrize("storage", ["int8", "int4", "int2"])
def test_it_applies_once(storage: str) -> None:
    """The second run changes nothing."""
    graph = _graph([np.full((2, 2, 1, 1), 1), np.full((2, 2, 1, 1), 3)], 3)
    run = engine_weights(storage, "int8", RTX)
    run(graph)
    assert not run(graph).modified
