"""Packed weights: the same integers, at the width that was asked for; sums that stay exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from qmdd.exporter.errors import ExportError
from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.codebook import codebook_of
from qmdd.exporter.passes.lower_thresholds import lower_thresholds
from qmdd.exporter.passes.pack_weights import (
    MIN_OPSET,
    STORAGES,
    opset_for,
    pack_weights,
)

I64 = npt.NDArray[np.int64]
LAYER = "stages.0.0.conv1.conv"
Layers = list[tuple[str, I64]]


def _graph(layers: Layers, top: int, pad: int = 0, stride: int = 1) -> gs.Graph:
    """Convolutions side by side on the codes of one quantizer that counts ``x >= 1, 2 .. top``."""
    c_in = layers[0][1].shape[1]
    x = gs.Variable("x", np.float32, ["N", c_in, "H", "W"])
    codes = gs.Variable("act")
    table = gs.Constant("table", np.arange(1, top + 1, dtype=np.float32).reshape(1, -1))
    attrs = {"layer": "stages.0.0.conv1"}
    nodes = [gs.Node("MultiThreshold", "", attrs, [x, table], [codes], DOMAIN)]
    outputs = []
    for index, (name, weight) in enumerate(layers):
        stored = np.int8 if np.abs(weight).max() < 128 else np.int16
        values = gs.Variable(f"weight{index}")
        out = gs.Variable(f"y{index}", np.float32, ["N", weight.shape[0], "P", "Q"])
        integers = gs.Constant(f"{name}.codes", weight.astype(stored))
        unit = gs.Constant(f"{name}.one", np.array(1, dtype=np.float32))
        kernel = list(weight.shape[2:])
        conv = {"kernel_shape": kernel, "pads": [pad] * 4, "strides": [stride, stride]}
        nodes.append(gs.Node("DequantizeLinear", "", {}, [integers, unit], [values]))
        nodes.append(gs.Node("Conv", f"conv{index}", conv, [codes, values], [out]))
        outputs.append(out)
    return gs.Graph(nodes, inputs=[x], outputs=outputs, opset=21)


#: Levels of every weight quantizer: N2UQ (odd), LSQ, MinMax, the two signs.
def _levels(bits: int, kind: str) -> I64:
    top = 2**bits - 1
    return {
        "n2uq": np.arange(-top, top + 1, 2),
        "lsq": np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)),
        "minmax": np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1)),
        "binary": np.array([-1, 1]),
    }[kind].astype(np.int64)


def _weights(bits: int, kind: str, shape: tuple[int, ...], seed: int = 0) -> I64:
    """Random codes in which the smallest and the largest level occur."""
    levels = _levels(bits, kind)
    drawn = np.random.default_rng([bits, seed]).choice(levels, shape)
    if drawn.size > 2:  # two neighbours, so that no wider stride fits
        drawn.reshape(-1)[:3] = levels[[0, -1, min(1, len(levels) - 1)]]
    return drawn


def _initializer(model: onnx.ModelProto, suffix: str) -> onnx.TensorProto:
    (found,) = [t for t in model.graph.initializer if t.name.endswith(suffix)]
    return found


@given(st.integers(-300, 300), st.integers(1, 60), st.lists(st.integers(0, 40), min_size=1))
def test_a_codebook_is_the_shortest_progression_that_holds_the_codes(
    first: int, stride: int, indices: list[int]
) -> None:
    """It starts and ends at a code, misses none, and no wider stride would do."""
    codes = first + stride * np.array(indices, dtype=np.int64)
    book = codebook_of(codes.reshape(1, -1, 1, 1))
    values = book.first + book.stride * np.arange(book.levels)
    assert values[0] == codes.min()
    assert values[-1] == codes.max()
    assert set(codes) <= set(values)
    steps = np.diff(np.unique(codes))
    if steps.size:
        assert book.stride == int(np.gcd.reduce(steps))
        assert book.stride % stride == 0
    else:
        assert (book.stride, book.levels) == (1, 1)
    assert book.levels <= 2**book.bits
    assert book.bits == min(b for b in (1, 2, 3, 4, 8, 16) if 2**b >= book.levels)


@pytest.mark.parametrize(
    ("bits", "kind"),
    [
        (1, "n2uq"),
        (1, "binary"),
        *itertools.product((2, 3, 4, 8), ("n2uq", "lsq", "minmax")),
    ],
)
def test_every_quantizers_levels_fit_their_own_width(bits: int, kind: str) -> None:
    """MinMax at 2 bits has three levels; nothing needs more bits than it has."""
    assert codebook_of(_weights(bits, kind, (4, 3, 3, 3))).bits == bits


def _feeds(shape: tuple[int, ...], top: int, seed: int = 1) -> I64:
    return np.random.default_rng(seed).integers(0, top + 1, shape)


#: Every storage at every opset that has its type, at every width and for every quantizer.
CASES = [
    (bits, kind, storage, opset)
    for bits, kind in (
        (1, "n2uq"),
        (1, "binary"),
        *itertools.product((2, 3, 4, 8), ("n2uq", "lsq", "minmax")),
    )
    for storage in STORAGES
    for opset in (17, 19, 21, 25)
    if storage == "own" or (bits <= int(storage[3:]) and MIN_OPSET[int(storage[3:])] <= opset)
]


@pytest.mark.parametrize(("bits", "kind", "storage", "opset"), CASES)
def test_the_stored_index_widens_to_the_codes(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    bits: int,
    kind: str,
    storage: str,
    opset: int,
) -> None:
    """Integers before DequantizeLinear are the weight codes; sums are int64's, in both tiers."""
    weight = _weights(bits, kind, (5, 3, 3, 3))  # 135 codes: no multiple of 8
    top = 2**bits - 1
    graph = _graph([(LAYER, weight)], top, pad=1)
    outcome = pack_weights(storage, opset)(graph)
    assert (outcome.applied, outcome.notes) == (1, [])
    (dequantize,) = [n for n in graph.nodes if n.op == "DequantizeLinear"]
    integers = dequantize.inputs[0]
    if isinstance(integers, gs.Constant):  # stored as they are
        np.testing.assert_array_equal(integers.values, weight)
    else:
        integers.dtype = np.dtype(np.int8 if np.abs(weight).max() < 128 else np.int32)
        graph.outputs.append(integers)
    lower_thresholds(graph)
    model = to_model(graph, opset)
    x = _feeds((2, 3, 6, 7), top)
    want = convolve(x, weight, 1, (1, 1, 1, 1))
    for optimize in (True, False):
        sums, *widened = run_model(model, optimize, x=x.astype(np.float32))
        np.testing.assert_array_equal(sums.astype(np.int64), want)
        for found in widened:
            np.testing.assert_array_equal(found.astype(np.int64), weight)


#: What holds the 135 codes of a layer: name -> (type, bytes).
TYPED = {
    2: {".index.uint2": (TensorProto.UINT2, 34)},
    4: {".index.uint4": (TensorProto.UINT4, 68)},
    8: {".index.uint8": (TensorProto.UINT8, 135)},
}
BYTES = {bits: {".index.bytes": (TensorProto.UINT8, -(-135 * bits // 8))} for bits in (2, 4)}
HIGH = {".index.high.bytes": (TensorProto.UINT8, 17)}


@pytest.mark.parametrize(
    ("bits", "storage", "opset", "kinds"),
    [
        (2, "own", 25, TYPED[2]),
        (2, "int2", 25, TYPED[2]),
        (2, "own", 21, BYTES[2]),
        (2, "own", 17, BYTES[2]),
        (2, "int4", 21, TYPED[4]),
        (2, "int8", 17, {".weight": (TensorProto.INT8, 135)}),
        (3, "own", 25, {".index.low.uint2": (TensorProto.UINT2, 34), **HIGH}),
        (3, "own", 21, {".index.low.bytes": (TensorProto.UINT8, 34), **HIGH}),
        (3, "int4", 21, TYPED[4]),
        (3, "int8", 21, {".weight": (TensorProto.INT8, 135)}),
        (4, "own", 21, TYPED[4]),
        (4, "own", 17, BYTES[4]),
        (4, "int8", 21, {".weight": (TensorProto.INT8, 135)}),
        (8, "own", 21, TYPED[8]),
        (8, "int8", 21, TYPED[8]),
    ],
)
def test_a_weight_takes_the_bytes_of_its_width(
    to_model: Callable[..., Any],
    bits: int,
    storage: str,
    opset: int,
    kinds: dict[str, tuple[int, int]],
) -> None:
    """135 codes: 34 bytes at 2 bits, 34 + 17 at 3, 68 at 4, 135 at 8; nothing else holds them."""
    graph = _graph([(LAYER, _weights(bits, "n2uq", (5, 3, 3, 3)))], 2**bits - 1)
    pack_weights(storage, opset)(graph)
    tables = {name for name in graph.tensors() if name.startswith("table")}
    model = to_model(graph, opset)
    for suffix, (dtype, size) in kinds.items():
        tensor = _initializer(model, LAYER + suffix)
        assert tensor.data_type == dtype
        assert len(tensor.raw_data) == size
    others = {t.name.removeprefix(LAYER): t for t in model.graph.initializer}
    for name, tensor in others.items():
        if name == ".book":
            assert len(tensor.raw_data) <= 4 * 2**bits
        elif name not in kinds and name not in tables:
            assert len(tensor.raw_data) <= 32, name


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 63, 65])
def test_bit_planes_of_any_length(
    to_model: Callable[..., Any], run_model: Callable[..., Any], count: int
) -> None:
    """Eight to a byte, also where the last byte is not full: a 1x1 kernel reads each code back."""
    weight = _weights(3, "n2uq", (count, 1, 1, 1), seed=count)
    weight[0] = -7
    weight[-1] = 7 if count > 1 else -7
    if count > 2:
        weight[1] = -5
    graph = _graph([(LAYER, weight)], 7)
    pack_weights("own", 25)(graph)
    lower_thresholds(graph)
    model = to_model(graph)
    if count > 2:
        assert len(_initializer(model, ".index.high.bytes").raw_data) == -(-count // 8)
    slices = sum(node.op_type == "Slice" for node in model.graph.node)
    assert slices == (1 if count % 8 else 0)  # one or two levels take one plane of bits
    for optimize in (True, False):
        (sums,) = run_model(model, optimize, x=np.ones((1, 1, 1, 1), dtype=np.float32))
        np.testing.assert_array_equal(sums.reshape(-1).astype(np.int64), weight.reshape(-1))


@given(
    st.integers(2, 8).flatmap(
        lambda top: st.lists(st.integers(-top, top), min_size=1, max_size=40)
    ),
    st.sampled_from([1, 2, 3]),
)
@settings(max_examples=25)
def test_any_codes_come_back(
    to_model: Callable[..., Any], run_model: Callable[..., Any], drawn: list[int], stride: int
) -> None:
    """Codes with gaps, with one level, all equal: whatever width they turn out to need."""
    weight = np.array(drawn, dtype=np.int64).reshape(-1, 1, 1, 1) * stride
    graph = _graph([(LAYER, weight)], 3)
    pack_weights("own", 25)(graph)
    lower_thresholds(graph)
    (sums,) = run_model(to_model(graph), x=np.full((1, 1, 1, 1), 3, dtype=np.float32))
    np.testing.assert_array_equal(sums.reshape(-1).astype(np.int64), 3 * weight.reshape(-1))


@pytest.mark.parametrize("kind", ["n2uq", "lsq"])
@pytest.mark.parametrize("optimize", [True, False])
def test_sums_beyond_2_24_are_split_and_rounded_once(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    kind: str,
    optimize: bool,
) -> None:
    """8 bits: two exact convolutions, one addition; the float32 next to the int64 sum.

    Some outputs pass 2^24, and some cancel to small sums whose partial sums pass it; a single
    float32 convolution misses some of them (checked, so that this test stays sharp).
    """
    rng = np.random.default_rng(5)
    levels = _levels(8, kind)
    weight = rng.choice(levels, (12, 128, 3, 3))
    weight[:4] = rng.choice(levels[levels > 0.75 * levels.max()], (4, 128, 3, 3))
    weight[4:8, :64] = rng.choice(levels[levels > 0.75 * levels.max()], (4, 64, 3, 3))
    weight[4:8, 64:] = np.clip(-weight[4:8, :64], levels.min(), levels.max())
    weight[4:8, 64] = rng.choice(levels, (4, 3, 3))
    x = rng.integers(200, 256, (1, 128, 6, 6))
    x[:, :, :3] = 255
    want = convolve(x, weight, 1, (1, 1, 1, 1))
    graph = _graph([(LAYER, weight)], 255, pad=1)
    lower = _graph([(LAYER, weight)], 255, pad=1)
    lower_thresholds(lower)
    (single,) = run_model(to_model(lower), optimize, x=x.astype(np.float32))
    assert pack_weights("own", 21)(graph).applied == 1
    assert [node.op for node in graph.nodes].count("Conv") == 2
    lower_thresholds(graph)
    (sums,) = run_model(to_model(graph), optimize, x=x.astype(np.float32))
    assert np.abs(want[:, :4]).max() > 2**24 or kind == "lsq"
    np.testing.assert_array_equal(sums, want.astype(np.float32))
    if kind == "n2uq":
        assert np.any(single != want.astype(np.float32))


@pytest.mark.parametrize(("largest", "convolutions"), [(2**24 - 1, 1), (2**24 + 254, 2)])
def test_the_split_starts_where_a_sum_can_reach_2_24(largest: int, convolutions: int) -> None:
    """``255 * sum|w|`` of one channel decides: 65,794 is the first to reach the limit."""
    total = largest // 255
    weight = np.full((2, 519, 1, 1), 127, dtype=np.int64)
    weight[1] = 1
    weight[0, 0] = -128
    weight[0, 2] += total - int(np.abs(weight[0]).sum())
    assert int(np.abs(weight).reshape(2, -1).sum(1).max()) == total
    graph = _graph([(LAYER, weight)], 255)
    pack_weights("own", 21)(graph)
    assert [node.op for node in graph.nodes].count("Conv") == convolutions


def test_sums_that_pass_even_in_two_parts_are_refused() -> None:
    weight = np.full((1, 70000, 1, 1), 255, dtype=np.int64)
    weight[0, 0] = -255
    weight[0, 1] = 253
    with pytest.raises(ExportError, match=rf"^{LAYER}: its integer sums pass 2\^24 even in two"):
        pack_weights("own", 21)(_graph([(LAYER, weight)], 255))


@pytest.mark.parametrize(("bits", "storage"), [(3, "int2"), (4, "int2"), (8, "int2"), (8, "int4")])
def test_a_storage_that_is_too_narrow_is_refused(bits: int, storage: str) -> None:
    graph = _graph([(LAYER, _weights(bits, "n2uq", (4, 2, 3, 3)))], 2**bits - 1)
    with pytest.raises(ExportError, match=f"^{LAYER}: {bits}-bit weights do not fit {storage}; ch"):
        pack_weights(storage, 25)(graph)


@pytest.mark.parametrize("storage", ["own", "int8"])
def test_more_levels_than_a_byte_counts_are_refused(storage: str) -> None:
    """An index of 16 bits has no storage; cut to 8 it would be another weight."""
    weight = np.arange(-150, 150, dtype=np.int64).reshape(3, 100, 1, 1)
    with pytest.raises(ExportError, match=f"^{LAYER}: 16-bit weights"):
        pack_weights(storage, 25)(_graph([(LAYER, weight)], 3))


@pytest.mark.parametrize(
    ("bits", "storage"), [(b, s) for b in (2, 3, 4, 8) for s in STORAGES if s in ("own", "int8")]
)
def test_it_applies_once(to_model: Callable[..., Any], bits: int, storage: str) -> None:
    """The second run changes nothing and says nothing."""
    graph = _graph([(LAYER, _weights(bits, "n2uq", (4, 2, 3, 3)))], 2**bits - 1)
    run = pack_weights(storage, 25)
    assert run(graph).applied == 1
    before = to_model(graph).SerializeToString()
    again = run(graph)
    assert (again.applied, again.modified, again.notes) == (0, False, [])
    assert to_model(graph).SerializeToString() == before


def test_layers_with_equal_weights_share_nothing_but_values(
    to_model: Callable[..., Any], run_model: Callable[..., Any], convolve: Callable[..., I64]
) -> None:
    """The tracer merges equal constants: two convolutions then read the same codes."""
    weight = _weights(2, "n2uq", (4, 2, 3, 3))
    graph = _graph([(LAYER, weight), ("other", weight)], 3)
    graph.nodes[3].inputs[0] = graph.nodes[1].inputs[0]
    assert pack_weights("own", 25)(graph).applied == 2
    lower_thresholds(graph)
    x = _feeds((1, 2, 5, 5), 3)
    for sums in run_model(to_model(graph), x=x.astype(np.float32)):
        want = convolve(x, weight, 1, (0, 0, 0, 0))
        np.testing.assert_array_equal(sums.astype(np.int64), want)


@pytest.mark.parametrize(("opset", "dtype"), [(17, np.int32), (19, np.int32), (21, np.int16)])
def test_the_stem_is_widened_where_int16_is_not_read(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    opset: int,
    dtype: type,
) -> None:
    """A convolution that reads no codes keeps its integers: INT16, INT32 before opset 21."""
    weight = np.array([[[[300]]], [[[-317]]]], dtype=np.int64)
    graph = _graph([("stem.conv", weight)], 3)
    graph.nodes[2].inputs[0] = graph.inputs[0]  # it reads x itself
    graph.cleanup()
    outcome = pack_weights("own", opset)(graph)
    assert outcome.applied == 0
    (dequantize,) = [n for n in graph.nodes if n.op == "DequantizeLinear"]
    assert dequantize.inputs[0].values.dtype == dtype
    (sums,) = run_model(to_model(graph, opset), x=np.full((1, 1, 1, 1), 7, dtype=np.float32))
    assert sums.reshape(-1).tolist() == [2100, -2219]


def test_float_weights_are_left() -> None:
    graph = _graph([(LAYER, _weights(2, "n2uq", (4, 2, 3, 3)))], 3)
    graph.nodes[2].inputs[1] = gs.Constant("floats", np.ones((4, 2, 3, 3), dtype=np.float32))
    outcome = pack_weights("own", 25)(graph)
    assert (outcome.applied, outcome.notes) == (0, [])


@pytest.mark.parametrize(
    ("storage", "opset"), [("own", 21), ("int2", 25), ("int4", 21), ("int8", 21)]
)
def test_the_default_opset_holds_the_storage(storage: str, opset: int) -> None:
    assert opset_for(storage) == opset
