"""The passes of the portable form: equal numbers before and behind each, and what each leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import pytest

from qmdd.exporter.errors import ExportError
from qmdd.exporter.lower import onnx_for_target
from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.base import insert
from qmdd.exporter.passes.byte_thresholds import byte_thresholds
from qmdd.exporter.passes.channels_last import NHWC
from qmdd.exporter.passes.codebook import INT16_PAIR
from qmdd.exporter.passes.columns import Columns, Window
from qmdd.exporter.passes.constant_stem import constant_stem
from qmdd.exporter.passes.matmul_conv import matmul_conv
from qmdd.exporter.passes.max_prelu import max_prelu
from qmdd.exporter.passes.pool_first import pool_first
from qmdd.exporter.passes.row_constants import LONGEST, row_constants
from qmdd.exporter.passes.slice_pools import slice_pools
from qmdd.exporter.passes.transpose_rest import transpose_rest
from qmdd.exporter.portable_graph import check_portable_graph
from qmdd.exporter.storage import check_microsoft
from qmdd.exporter.targets import find_target, passes_of
from qmdd.models import Detector

Array = npt.NDArray[Any]
TARGET = find_target("cpu")
#: Codes that convolutions read minus a zero.
CENTRED = {"activation": "minmax", "weight": "minmax"}
BINARY = {"activation": "binary", "weight": "binary"}
#: The pass behind which a graph is as it is written.
LAST = {"row_strips"}
TraceOnce = Callable[[Detector], onnx.ModelProto]


def _ops(graph: gs.Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


@pytest.mark.parametrize(
    ("arch", "bits", "options", "idle", "compared"),
    [
        ("resnet23", 2, {}, set(), set()),
        ("resnet23", 8, CENTRED, set(), {"matmul_conv", *LAST}),
        ("resnet23", 2, {"representation": "rgb", "cqb": False}, {"slice_pools"}, LAST),
        ("mobilenetv2", 1, BINARY, {"pool_first", "constant_stem", "row_strips"}, LAST),
    ],
    ids=["narrow", "centred", "rgb", "depthwise"],
)
def test_every_pass_keeps_every_code(
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    graph_outputs: Callable[..., dict[str, Array]],
    arch: str,
    bits: int,
    options: dict[str, Any],
    idle: set[str],
    compared: set[str],
) -> None:
    """Pass by pass, without optimiser; each applies, and a second time it changes nothing.

    ``idle``: passes that find nothing in this network. ``compared``: those behind which it runs;
    all, where none is named.
    """
    graph = gs.import_onnx(trace_once(make_detector(arch, bits, **options)))
    images = np.random.default_rng(3).integers(0, 256, (2, 3, 38, 46), dtype=np.uint8)
    expected = graph_outputs(graph, images)
    for name, run in passes_of(TARGET, "own", 21, "int8"):
        assert bool(run(graph).applied) == (name not in idle), name
        assert not run(graph).modified, name
        if compared and name not in compared:
            continue
        found = graph_outputs(graph, images)
        assert found.keys() == expected.keys(), name
        for layer, codes in expected.items():
            if layer == "logit":  # a mean over the image: its sum has each runtime's order
                np.testing.assert_allclose(found[layer], codes, rtol=0, atol=1e-5)
            else:
                np.testing.assert_array_equal(found[layer], codes, err_msg=f"{name}: {layer}")
    left = _ops(graph)
    assert left["PRelu"] == 0
    assert not [node for node in graph.nodes if node.domain]


def test_products_read_constants_of_bytes(
    tmp_path: Path,
    small: Detector,
    trace_once: TraceOnce,
) -> None:
    """Loaded, every product's weights are one INT8 constant; nothing is dequantised at a run."""
    import onnxruntime as ort

    lowered = onnx_for_target(trace_once(small), TARGET, "own", 21)
    check_portable_graph(lowered.model)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(lowered.model.SerializeToString(), options)
    loaded = onnx.load(tmp_path / "optimized.onnx")
    kinds = {tensor.name: tensor.data_type for tensor in loaded.graph.initializer}
    products = [node for node in loaded.graph.node if node.op_type == "MatMulInteger"]
    applied = dict(lowered.applied)
    assert len(products) == applied["matmul_conv"] + applied["row_strips"]
    assert {kinds[node.input[1]] for node in products} == {onnx.TensorProto.INT8}
    assert not [node for node in loaded.graph.node if node.op_type == "DequantizeLinear"]


@pytest.mark.parametrize("storage", ["own", "int8", "int4", "int2"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_weights_come_back_as_they_were(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[Array]],
    convolve: Callable[..., Array],
    storage: str,
    bits: int,
) -> None:
    """Odd counts, every width and storage; sums of the largest codes, against int64."""
    top = 2**bits - 1
    rng = np.random.default_rng(bits)
    weights = rng.choice(np.arange(-top, top + 1, 2), (5, 3, 3, 3)).astype(np.int16)
    weights.reshape(-1)[:2] = (-top, top)
    graph = _convolution(weights, top, {"pads": [1, 1, 1, 1], "strides": [2, 1]})
    run = matmul_conv(storage, 25)
    if storage.removeprefix("int") in ("2", "4") and int(storage[3:]) < bits:
        with pytest.raises(ExportError, match="do not fit"):
            run(graph)
        return
    assert run(graph).applied == 1
    assert not run(graph).modified
    for node in graph.nodes:
        if node.op == "Constant" or node.op != "Gather":
            continue
        book = node.inputs[0]
        if isinstance(book, gs.Constant) and book.name.endswith(".book"):
            assert np.abs(book.values.astype(int)).max() * top <= INT16_PAIR
    byte_thresholds(graph)
    x = rng.choice([-10.0, 10.0], (2, 7, 9, 3), p=[0.1, 0.9]).astype(np.float32)
    (found,) = run_model(to_model(graph, 25), optimize=False, x=x)
    codes = np.moveaxis(np.where(x > 0, top, 0), -1, 1)
    whole = convolve(codes, weights, 1, (1, 1, 1, 1))[:, :, ::2]
    np.testing.assert_array_equal(np.moveaxis(found, -1, 1), whole.astype(np.float32))


def _convolution(weights: Array, top: int, attrs: dict[str, Any], group: int = 1) -> gs.Graph:
    """``y``: a private convolution of the codes of ``x`` ``[N, H, W, C]``."""
    x = gs.Variable("x", np.float32, ["N", "H", "W", weights.shape[1] * group])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=25)
    table = gs.Constant("table", np.linspace(-1, 1, top).reshape(1, -1).astype(np.float32))
    codes = insert(graph, "MultiThreshold", "q.codes", [x, table], {"layer": "q", "axis": 3})
    codes.inputs[0].domain = DOMAIN
    one = gs.Constant("unit", np.array(1, dtype=np.float32))
    scaled = insert(graph, "DequantizeLinear", "w", [gs.Constant("w.codes", weights), one])
    y = insert(graph, "Conv", "y", [codes, scaled], {**attrs, "group": group})
    y.inputs[0].domain = NHWC
    graph.outputs = [y]
    return graph


def test_sums_beyond_what_holds_them_are_refused() -> None:
    """INT32 for products, whole floats for what stays a convolution."""
    wide = np.full((2, 20000, 3, 3), 255, dtype=np.int16)
    with pytest.raises(ExportError, match=r"w: its integer sums pass 2\^31"):
        matmul_conv("own", 21)(_convolution(wide, 255, {}))
    grouped = np.full((4, 200, 3, 3), 255, dtype=np.int16)
    graph = _convolution(grouped, 255, {}, group=2)
    assert not matmul_conv("own", 21)(graph).modified
    with pytest.raises(ExportError, match=r"its integer sums pass 2\^24"):
        transpose_rest(graph)


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "pads"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
        ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1)),
        ((2, 5), (3, 1), (2, 1), (0, 2, 1, 0)),
        ((1, 1), (2, 2), (1, 1), (0, 0, 0, 0)),
        ((1, 1), (1, 1), (1, 1), (0, 1, 0, 0)),
        ((4, 4), (1, 1), (1, 1), (2, 2, 1, 1)),
    ],
)
def test_columns_are_the_windows(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[Array]],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
) -> None:
    x = gs.Variable("x", np.uint8, ["N", "H", "W", 3])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=21)
    window = Window(kernel, strides, dilations, pads)
    make = Columns(graph)
    first, second = (make.of(x, name, window, 7, 3, ("x",)) for name in ("first", "second"))
    for tensor in (first, second):
        tensor.dtype, tensor.shape = np.uint8, ["N", "P", "Q", "K"]
    graph.outputs = [first, second]
    assert _ops(graph)["Range"] in (0, 2)  # once for both
    graph.cleanup().toposort()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
    found = run_model(to_model(graph, 21), optimize=False, x=pixels)
    top, left, bottom, right = pads
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(pixels, around, constant_values=7)
    reach = [(side - 1) * apart for side, apart in zip(kernel, dilations, strict=True)]
    height, width = (n - r for n, r in zip(padded.shape[1:3], reach, strict=True))
    rows = [
        padded[:, i : i + height : strides[0], j : j + width : strides[1]]
        for i in range(0, reach[0] + 1, dilations[0])
        for j in range(0, reach[1] + 1, dilations[1])
    ]
    for one in found:
        np.testing.assert_array_equal(one, np.concatenate(rows, axis=3))


@pytest.mark.parametrize("top", [1, 3, 7, 15, 255])
@pytest.mark.parametrize("rows", [1, 4])
def test_codes_are_numpys_count(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[Array]],
    top: int,
    rows: int,
) -> None:
    """Bytes; floats for readers of floats. NaN, infinities, zeros; thresholds that are infinite."""
    rng = np.random.default_rng(top)
    table = np.sort(rng.normal(0, 1, (rows, top)).astype(np.float32), axis=1)
    table[0, 0] = -np.inf
    table[-1, -1] = np.inf if top > 1 else 0.0
    x = gs.Variable("x", np.float32, ["N", "H", "W", 4])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=21)
    operands = [x, gs.Constant("table", table)]
    codes = insert(graph, "MultiThreshold", "q.codes", operands, {"layer": "q", "axis": 3})
    codes.inputs[0].domain = DOMAIN
    as_bytes = insert(graph, "Cast", "bytes", [codes], {"to": 2})
    pooled = insert(graph, "Mul", "y", [codes, gs.Constant("half", np.float32([0.5]))])
    again = insert(graph, "Add", "z", [as_bytes, as_bytes])
    again.dtype, again.shape = np.uint8, ["N", "H", "W", 4]
    graph.outputs = [pooled, again]
    assert byte_thresholds(graph).applied == 1
    assert not byte_thresholds(graph).modified
    assert "q.codes" in graph.tensors()
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -3e38]
    values = np.concatenate([table.reshape(-1), np.nextafter(table, 9).reshape(-1), special])
    value = rng.choice(values, (2, 3, 40, 4)).astype(np.float32)
    found = run_model(to_model(graph, 21), optimize=False, x=value)
    with np.errstate(invalid="ignore"):
        expected = (value[..., None] >= np.broadcast_to(table, (4, top))).sum(axis=-1)
    np.testing.assert_array_equal(found[0], expected * 0.5)
    np.testing.assert_array_equal(found[1], (2 * expected).astype(np.uint8))


def test_thresholds_out_of_order_are_refused() -> None:
    x = gs.Variable("x", np.float32, ["N", "H", "W", 4])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=21)
    operands = [x, gs.Constant("table", np.float32([[1, 0, 2]]))]
    insert(graph, "MultiThreshold", "q.codes", operands, {"layer": "q", "axis": 3})
    with pytest.raises(ExportError, match="q: its thresholds are not an ascending constant"):
        byte_thresholds(graph)


def _pointwise(op: str, value: Array, channels: int) -> gs.Graph:
    """``y`` of ``x`` ``[N, C, H, W]``, turned, by one operator with a constant."""
    x = gs.Variable("x", np.float32, ["N", channels, "H", "W"])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=21)
    turned = insert(graph, "Transpose", "turned", [x], {"perm": [0, 2, 3, 1]})
    first = insert(
        graph, "Mul", "first", [turned, gs.Constant("two", np.array(2, dtype=np.float32))]
    )
    y = insert(graph, op, "y", [first, gs.Constant("value", value)])
    y.dtype, y.shape = np.float32, ["N", "H", "W", channels]
    graph.outputs = [y]
    return graph


@pytest.mark.parametrize(
    ("slopes", "products"),
    [([0.0, 0.25, 1.0, -0.5], 1), ([0.5, 1.5, -2.0, 1.0], 3)],
    ids=["up to one", "above one"],
)
def test_prelu_is_the_larger_of_two(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[Array]],
    slopes: list[float],
    products: int,
) -> None:
    """Any finite number, zeros of both signs and subnormal ones among them; a NaN stays one."""
    graph = _pointwise("PRelu", np.float32(slopes), 4)
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, (2, 4, 20, 30), dtype=np.uint32).view(np.float32)
    x = np.where(np.isfinite(bits) & (np.abs(bits) < 1e38), bits, rng.normal(0, 1, bits.shape))
    x = x.astype(np.float32)
    x[0, :, 0, :6] = [0.0, -0.0, 1e-45, -1e-45, -1e38, np.nan]
    (before,) = run_model(to_model(graph.copy(), 21), optimize=False, x=x)
    assert max_prelu(graph).applied == 1
    assert not max_prelu(graph).modified
    assert _ops(graph) == Counter(Transpose=1, Mul=1 + products, Max=1)
    (after,) = run_model(to_model(graph, 21), optimize=False, x=x)
    np.testing.assert_array_equal(after, before)


def test_a_slope_that_is_no_constant_stays(to_model: Callable[..., onnx.ModelProto]) -> None:
    graph = _pointwise("PRelu", np.float32([np.inf] * 4), 4)
    outcome = max_prelu(graph)
    assert not outcome.modified
    assert "no finite constant" in outcome.notes[0]


@pytest.mark.parametrize("sides", [(6, 8), (7, 9), (1, 2), (2, 1)])
def test_means_of_neighbours(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[Array]],
    sides: tuple[int, int],
) -> None:
    """Both sides, a scale and a concatenation behind: one product in all, before the latter."""
    x = gs.Variable("x", np.float32, ["N", "H", "W", 3])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=21)
    tensor: gs.Tensor = x
    for number, kernel in enumerate(([1, 2], [2, 1])):
        attrs = {"kernel_shape": kernel, "strides": kernel, "ceil_mode": 1, "count_include_pad": 0}
        tensor = insert(graph, "AveragePool", f"pool{number}", [tensor], attrs)
        tensor.inputs[0].domain = NHWC
    joined = insert(graph, "Concat", "joined", [tensor, tensor], {"axis": 3})
    y = insert(graph, "Mul", "y", [joined, gs.Constant("rest", np.array(0.3, dtype=np.float32))])
    y.dtype, y.shape = np.float32, ["N", "P", "Q", 6]
    graph.outputs = [y]
    plain = graph.copy()
    assert transpose_rest(plain).applied == 2
    assert slice_pools(graph).applied == 3  # both, and the constant behind the concatenation
    assert not slice_pools(graph).modified
    assert _ops(graph)["Mul"] == 1
    (scaled,) = [node for node in graph.nodes if node.op == "Mul"]
    assert scaled.inputs[1].values == np.float32(0.3) / 4
    value = np.random.default_rng(2).normal(0, 5, (2, *sides, 3)).astype(np.float32)
    (before,) = run_model(to_model(plain, 21), optimize=False, x=value)
    graph.outputs[0].dtype, graph.outputs[0].shape = np.float32, ["N", "P", "Q", 6]
    (after,) = run_model(to_model(graph, 21), optimize=False, x=value)
    np.testing.assert_array_equal(after, before)


def test_other_poolings_are_left() -> None:
    x = gs.Variable("x", np.float32, ["N", "H", "W", 3])
    graph = gs.Graph([], inputs=[x], outputs=[], opset=21)
    plain = {"kernel_shape": [1, 2], "strides": [1, 2], "ceil_mode": 1}
    for number, attrs in enumerate(
        ({"ceil_mode": 0}, {"strides": [1, 1]}, {"kernel_shape": [2, 2], "strides": [2, 2]})
    ):
        pooled = insert(graph, "AveragePool", f"y{number}", [x], {**plain, **attrs})
        pooled.inputs[0].domain = NHWC
        graph.outputs.append(pooled)
    assert not slice_pools(graph).modified
    assert _ops(graph) == Counter(AveragePool=3)


@pytest.mark.parametrize("channels", [4, LONGEST, LONGEST + 1])
def test_short_constants_are_written_out(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[Array]],
    channels: int,
) -> None:
    """Along a row of any width; what a Transpose gives is not asked for its shape."""
    graph = _pointwise("Add", np.arange(channels, dtype=np.float32), channels)
    x = np.random.default_rng(0).normal(0, 1, (2, channels, 3, 5)).astype(np.float32)
    (before,) = run_model(to_model(graph.copy(), 21), optimize=False, x=x)
    outcome = row_constants(graph)
    assert outcome.applied == (channels <= LONGEST)
    assert not row_constants(graph).modified
    for node in graph.nodes:
        if node.op == "Shape":
            assert node.inputs[0].name == "first"
    (after,) = run_model(to_model(graph, 21), optimize=False, x=x)
    np.testing.assert_array_equal(after, before)


def test_strips_share_what_is_the_same(small: Detector, trace_once: TraceOnce) -> None:
    """Two products for one, of the same weights; places cut once; codes joined under their name."""
    plain = onnx_for_target(trace_once(small), TARGET, "own", 21)
    graph = gs.import_onnx(plain.model)
    applied = dict(plain.applied)
    ops = _ops(graph)
    assert ops["MatMulInteger"] == applied["matmul_conv"] + applied["row_strips"]
    assert applied["row_strips"] >= 2
    upper = [node for node in graph.nodes if node.op == "MatMulInteger"]
    weights = Counter(node.inputs[1].name for node in upper)
    assert sorted(weights.values())[-applied["row_strips"] :] == [2] * applied["row_strips"]
    cut = [node for node in graph.nodes if node.op == "Split"]
    assert len([node for node in cut if node.inputs[0].name.endswith(".places")]) == 1
    joined = [n.outputs[0].name for n in graph.nodes if n.op == "Concat" and n.attrs["axis"] == 1]
    codes = [name for name in joined if name.endswith(".codes")]
    assert len(codes) >= applied["row_strips"]


def test_only_a_pooled_stem_has_constant_weights(
    small: Detector, make_detector: Callable[..., Detector], trace_once: TraceOnce
) -> None:
    """Elsewhere the optimiser would fold the scale behind the sums into them."""
    for detector, applied in ((small, 1), (make_detector("mobilenetv2", 1, **BINARY), 0)):
        graph = gs.import_onnx(trace_once(detector))
        pool_first(graph)
        assert constant_stem(graph).applied == applied
        for conv in [node for node in graph.nodes if node.op == "Conv"]:
            cast = conv.inputs[1].inputs[0].op == "Cast"
            readers = [node.op for node in conv.outputs[0].outputs]
            assert cast == (readers == ["MaxPool"])


def test_microsofts_operators_on_demand(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, run_model: Callable[..., list[Array]]
) -> None:
    """The same logit to the bit, without optimiser too; refused where they are of no use."""
    images = np.random.default_rng(5).integers(0, 256, (2, 3, 38, 46), dtype=np.uint8)
    logits = []
    for microsoft in (False, True):
        lowered = onnx_for_target(trace_once(small), TARGET, "own", 21, microsoft=microsoft)
        check_portable_graph(lowered.model, microsoft=microsoft)
        found = Counter(node.domain for node in lowered.model.graph.node)
        applied = dict(lowered.applied)
        fused = applied["scaled_products"] + applied["row_strips"] if microsoft else 0
        assert found["com.microsoft"] == fused
        for optimize in (False, True):
            logits += run_model(lowered.model, optimize=optimize, image=images)
    with pytest.raises(ExportError, match=r"an operator of com\.microsoft is left"):
        check_portable_graph(lowered.model)
    for logit in logits:
        np.testing.assert_array_equal(logit, logits[0])
    with pytest.raises(ExportError, match="--allow-microsoft out"):
        check_microsoft(find_target("onnx"), True)


def test_what_the_graph_promises_is_looked_up(small: Detector, trace_once: TraceOnce) -> None:
    """Planted faults are named with their node."""
    model = onnx_for_target(trace_once(small), TARGET, "own", 21).model

    def fault(change: Callable[[onnx.ModelProto], None], says: str) -> None:
        damaged = onnx.ModelProto()
        damaged.CopyFrom(model)
        change(damaged)
        with pytest.raises(ExportError, match=says):
            check_portable_graph(damaged)

    def dequantised(damaged: onnx.ModelProto) -> None:
        (first, *_) = [n for n in damaged.graph.node if n.op_type == "MatMulInteger"]
        makers = {n.output[0]: n for n in damaged.graph.node}
        makers[first.input[1]].op_type = "DequantizeLinear"

    def private(damaged: onnx.ModelProto) -> None:
        damaged.graph.node[-1].domain = NHWC

    def logarithm(damaged: onnx.ModelProto) -> None:
        damaged.graph.node[-1].op_type = "Log"

    fault(dequantised, "its weights do not fold to a constant")
    fault(private, f"an operator of {NHWC} is left")
    fault(logarithm, "a logarithm is left")
