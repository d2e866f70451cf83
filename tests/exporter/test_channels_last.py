"""Channels-last: the numbers of both forms in ONNX Runtime, and where Transposes stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import pytest

from qmdd.exporter.passes.cell_stem import cell_stem
from qmdd.exporter.passes.channels_last import CHANNELS, NHWC, channels_last
from qmdd.exporter.passes.fold_chain import fold_chain
from qmdd.exporter.passes.fold_stem import fold_stem
from qmdd.exporter.passes.lower_thresholds import lower_thresholds
from qmdd.exporter.passes.pool_head import pool_head
from qmdd.exporter.passes.transpose_rest import transpose_rest
from qmdd.models import Detector

Array = npt.NDArray[Any]
FOLDS = (fold_stem, pool_head, fold_chain)


def _ops(graph: gs.Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


@pytest.mark.parametrize(
    ("arch", "bits", "options"),
    [
        ("resnet23", 2, {}),
    ],
    ids=lambda value: "-".join(f"{v}" for v in value.values()) if isinstance(value, dict) else None,
)
def test_the_numbers_are_the_same(
    make_detector: Callable[..., Detector],
    trace_once: Callable[[Detector], onnx.ModelProto],
    graph_outputs: Callable[..., dict[str, Array]],
    arch: str,
    bits: int,
    options: dict[str, Any],
) -> None:
    graph = gs.import_onnx(trace_once(make_detector(arch, bits, **options)))
    for one in FOLDS:
        one(graph)
    images = np.random.default_rng(3).integers(0, 256, (2, 3, 38, 46), dtype=np.uint8)
    before = graph_outputs(graph, images)
    convolutions = _ops(graph)["Conv"]
    outcome = channels_last(graph)
    assert outcome.notes == []
    turned = [node for node in graph.nodes if node.domain == NHWC]
    assert len(turned) == outcome.applied
    assert sum(node.op == "Conv" for node in turned) == convolutions == _ops(graph)["Conv"]
    assert _ops(graph)["Transpose"] == 1  # the image
    for step in (lambda _: None, cell_stem):
        step(graph)
        after = graph_outputs(graph, images)
        assert after.keys() == before.keys()
        for name in before:
            np.testing.assert_array_equal(after[name], before[name]) if name != "logit" else None
        np.testing.assert_allclose(after["logit"], before["logit"], rtol=0, atol=1e-5)
    assert not channels_last(graph).modified
    for node in graph.nodes:
        if node.op == "MultiThreshold":
            assert node.attrs["axis"] == CHANNELS


def test_floats_are_left_to_the_runtime(
    make_detector: Callable[..., Detector], trace_once: Callable[[Detector], onnx.ModelProto]
) -> None:
    graph = gs.import_onnx(trace_once(make_detector("resnet23", 32)))
    before = _ops(graph)
    outcome = channels_last(graph)
    assert not outcome.modified
    assert "no quantizers" in outcome.notes[0]
    assert _ops(graph) == before


def _const(name: str, *values: float, dtype: type = np.int64) -> gs.Constant:
    return gs.Constant(name, np.array(values, dtype=dtype))


#: Operators behind a quantizer of four channels: ``(op, attributes, constants, Transposes)``.
CASES: dict[str, tuple[str, dict[str, Any], list[gs.Constant], int]] = {
    "channels of a slice": (
        "Slice", {}, [_const("s", 1), _const("e", 4), _const("a", 1), _const("t", 2)], 0),
    "rows of a slice": ("Slice", {}, [_const("s", 1), _const("e", -1), _const("a", -2)], 0),
    "all axes of a slice": ("Slice", {}, [_const("s", 0, 1), _const("e", 9, 3)], 0),
    "gather": ("Gather", {"axis": 1}, [_const("i", 3, 0, 0)], 0),
    "pad": ("Pad", {}, [_const("p", 0, 1, 2, 0, 0, 0, 1, 3)], 0),
    "mean of channels": ("ReduceMean", {"keepdims": 1}, [_const("a", 1)], 0),
    "mean of rows, two axes less": ("ReduceMean", {"keepdims": 0}, [_const("a", 1, 2)], 0),
    "mean of columns, out of order": ("ReduceMean", {"keepdims": 0}, [_const("a", 3)], 1),
    "nearest": (
        "Resize",
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        [_const("r", dtype=np.float32), _const("s", 1, 1, 2, 3, dtype=np.float32)],
        0,
    ),
    "slope a channel": (
        "PRelu", {}, [gs.Constant("s", np.linspace(-1, 1, 4).reshape(4, 1, 1).astype(np.float32))],
        0,
    ),
    "a column of constants": (
        "Mul", {}, [gs.Constant("s", np.arange(6).reshape(6, 1).astype(np.float32))], 0),
    "shape": ("Shape", {}, [], 1),
    "flat": ("Flatten", {"axis": 1}, [], 1),
    "every axis at once": ("Transpose", {"perm": [3, 2, 1, 0]}, [], 1),
    "largest of all": ("GlobalMaxPool", {}, [], 1),
    "mean of all": ("GlobalAveragePool", {}, [], 0),
    "four dimensions pooled": (
        "AveragePool",
        {"kernel_shape": [2, 2], "strides": [2, 1], "ceil_mode": 1, "count_include_pad": 0},
        [],
        0,
    ),
    "paddings that are not written down": (
        "MaxPool", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, [], 1),
}  # fmt: skip


def _graph(op: str, attrs: dict[str, Any], constants: list[gs.Constant]) -> gs.Graph:
    """A quantizer over four channels, ``op``, and the result as it was: channels first."""
    x = gs.Variable("x", np.float32, ["N", 4, 6, 10])
    table = gs.Constant("table", np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32))
    codes, y = gs.Variable("first.codes"), gs.Variable("y", np.int64 if op == "Shape" else None)
    nodes = [
        gs.Node("MultiThreshold", "q", {"layer": "first"}, [x, table], [codes], domain="qmdd"),
        gs.Node(op, op, dict(attrs), [codes, *constants], [y]),
    ]
    return gs.Graph(nodes, inputs=[x], outputs=[y], opset=21)


@pytest.mark.parametrize("case", CASES)
def test_one_operator(
    to_model: Callable[..., onnx.ModelProto], run_model: Callable[..., list[Array]], case: str
) -> None:
    op, attrs, constants, transposes = CASES[case]
    x = np.random.default_rng(4).normal(0, 1, (2, 4, 6, 10)).astype(np.float32)
    found, turned = [], 0
    for last in (False, True):
        graph = _graph(op, attrs, constants)
        if last:
            outcome = channels_last(graph)
            turned = _ops(graph)["Transpose"] - (op == "Transpose")
            assert len(outcome.notes) == transposes
            transpose_rest(graph)
        lower_thresholds(graph)
        rank = 1 if op == "Shape" else None
        output = graph.outputs[0]
        output.dtype = np.dtype(np.int64 if rank else np.float32)
        output.shape = [4] if rank else None
        model = gs.export_onnx(graph, do_type_check=False)
        model.ir_version = 10
        found += run_model(model, optimize=False, x=x)
    np.testing.assert_array_equal(found[1], found[0])
    # The image, and what could not be turned; a result that was turned goes back once more.
    back = found[0].ndim == 4 and not transposes
    assert turned == 1 + transposes + back


def test_a_tensor_read_in_both_forms_is_transposed_once(
    run_model: Callable[..., list[Array]],
) -> None:
    graph = _graph("Flatten", {"axis": 1}, [])
    codes = graph.nodes[0].outputs[0]
    total = gs.Variable("total")
    other = gs.Node("Flatten", "again", {"axis": 2}, [codes], [gs.Variable("z")])
    graph.nodes.extend([other, gs.Node("Relu", "relu", {}, [codes], [total])])
    graph.outputs = [graph.outputs[0], other.outputs[0], total]
    assert len(channels_last(graph).notes) == 2
    assert _ops(graph)["Transpose"] == 3  # the image, the codes, the last output
