"""The passes of the OpenVINO target, each one's two sides in ONNX Runtime without its optimiser."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import pytest

from qmdd.exporter.passes.base import Outcome
from qmdd.exporter.passes.block_head import block_head
from qmdd.exporter.passes.byte_stem import byte_stem
from qmdd.exporter.passes.fold_chain import fold_chain
from qmdd.exporter.passes.fold_stem import fold_stem
from qmdd.exporter.passes.hold_fusions import hold_fusions
from qmdd.exporter.passes.lower_thresholds import lower_thresholds
from qmdd.exporter.passes.pack_weights import pack_weights
from qmdd.exporter.passes.pad_codes import pad_codes
from qmdd.exporter.passes.pool_first import pool_first
from qmdd.exporter.passes.pool_head import pool_head
from qmdd.models import Detector

Pass = Callable[[gs.Graph], Outcome]
FOLDS: tuple[Pass, ...] = (fold_stem, pool_head, fold_chain)
in_bytes = functools.partial(lower_thresholds, in_bytes=True)
LOWEST = np.finfo(np.float32).min


class Sides(NamedTuple):
    """A graph behind a pass, its outcome, and what both sides give for the same images."""

    graph: gs.Graph
    outcome: Outcome
    before: list[npt.NDArray[Any]]
    after: list[npt.NDArray[Any]]


@pytest.fixture
def both_sides(
    trace_once: Callable[[Detector], onnx.ModelProto],
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[npt.NDArray[Any]]],
) -> Callable[..., Sides]:
    """Run ``step`` behind ``first`` on a detector's trace; a second time it must change nothing."""

    def run(detector: Detector, first: Sequence[Pass], step: Pass) -> Sides:
        graph = gs.import_onnx(trace_once(detector))
        for tensor in graph.tensors().values():
            if isinstance(tensor, gs.Variable):
                tensor.shape = None
        graph.inputs[0].shape, graph.outputs[0].shape = ["N", 3, "H", "W"], ["N"]
        for one in first:
            one(graph)
        images = np.random.default_rng(3).integers(0, 256, (2, 3, 70, 94), dtype=np.uint8)

        def outputs() -> list[npt.NDArray[Any]]:
            model = to_model(graph.copy(), 21)
            probes = [o for n in model.graph.node for o in n.output if o.endswith(".codes")]
            kinds = {n.output[0]: n.op_type for n in model.graph.node}
            for name in probes:
                byte = kinds[name] == "QuantizeLinear"
                kind = onnx.TensorProto.UINT8 if byte else onnx.TensorProto.FLOAT
                model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
            return run_model(model, optimize=False, image=images)

        before = outputs()
        outcome = step(graph)
        after = outputs()
        assert not step(graph).modified
        assert len(before) == len(after)
        return Sides(graph, outcome, before, after)

    return run


def _assert_same(sides: Sides) -> None:
    for before, after in zip(sides.before, sides.after, strict=True):
        np.testing.assert_array_equal(after, before)


def _ops(graph: gs.Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def _flip(detector: Detector) -> Detector:
    """Let some of the stem's batch-norm factors be negative."""
    import torch

    with torch.no_grad():
        detector.get_submodule("stem").conv.bn.weight[::2] *= -1  # type: ignore[union-attr,operator]
    return detector


def test_pooling_moves_before_the_scale(
    make_detector: Callable[..., Detector], both_sides: Callable[..., Sides]
) -> None:
    """Also where multipliers are negative: the weights change their sign instead."""
    sides = both_sides(_flip(make_detector(seed=4)), FOLDS, pool_first)
    assert sides.outcome.applied == 1
    _assert_same(sides)
    (pool,) = [node for node in sides.graph.nodes if node.op == "MaxPool"]
    assert pool.inputs[0].inputs[0].op == "Conv"
    (scaled,) = pool.outputs[0].outputs
    assert scaled.op == "Mul"
    assert (scaled.inputs[1].values > 0).all()


def test_a_network_without_pooling_is_left(
    make_detector: Callable[..., Detector], both_sides: Callable[..., Sides]
) -> None:
    sides = both_sides(make_detector("mobilenetv2", 2), FOLDS, pool_first)
    assert (sides.outcome.applied, sides.outcome.notes) == (0, [])


@pytest.mark.parametrize("arch", ["resnet23", "mobilenetv2"])
def test_the_stem_reads_bytes(
    make_detector: Callable[..., Detector], both_sides: Callable[..., Sides], arch: str
) -> None:
    sides = both_sides(make_detector(arch, 2), FOLDS, byte_stem)
    assert sides.outcome.applied == 1
    _assert_same(sides)
    assert "Cast" not in _ops(sides.graph)
    stems = [node for node in sides.graph.nodes if node.name.startswith("stem.part")]
    parts = [node for node in stems if node.op == "Conv"]
    for conv in parts:
        stored = conv.inputs[1].inputs[0].inputs[0].values
        assert stored.dtype == np.int8
        assert 255 * 2 * int(np.abs(stored.astype(int)).max()) < 2**15  # two products in INT16


def test_a_stem_of_differences_stays_in_float(
    make_detector: Callable[..., Detector], both_sides: Callable[..., Sides]
) -> None:
    sides = both_sides(make_detector(representation="rgb"), FOLDS, byte_stem)
    assert sides.outcome.applied == 0
    assert any("not raw pixels" in note for note in sides.outcome.notes)


@pytest.mark.parametrize("bits", [4, 8])
def test_centred_codes_are_read_as_they_are(
    make_detector: Callable[..., Detector], both_sides: Callable[..., Sides], bits: int
) -> None:
    """Padded with the code that stands for zero; sums of 8 bits stay below 2^24 at this width."""
    detector = make_detector("resnet23", bits, activation="minmax", weight="minmax")
    sides = both_sides(detector, FOLDS, pad_codes)
    assert sides.outcome.applied > 0
    _assert_same(sides)
    assert "Sub" not in _ops(sides.graph)
    fills = [node.inputs[2].values for node in sides.graph.nodes if node.op == "Pad"]
    assert len(fills) > 0
    assert all(fill > 0 for fill in fills)


def test_codes_counted_in_bytes_are_the_same(
    make_detector: Callable[..., Detector], both_sides: Callable[..., Sides]
) -> None:
    """Padded ones and plain ones; every convolution of codes reads UINT8 without a zero point."""
    detector = make_detector("resnet23", 4, activation="minmax", weight="minmax")
    first = (*FOLDS, pad_codes, pack_weights("own", 21, int16_pairs=True))
    sides = both_sides(detector, first, in_bytes)
    for before, after in zip(
        sorted(sides.before, key=lambda a: (a.shape, a.sum())),
        sorted(sides.after, key=lambda a: (a.shape, a.sum())),
        strict=True,
    ):
        np.testing.assert_array_equal(after, before)
    quantise = [node for node in sides.graph.nodes if node.op == "QuantizeLinear"]
    assert len(quantise) > 0
    for node in quantise:
        assert node.inputs[2].values.dtype == np.uint8
        assert node.inputs[2].values == 0


def test_weights_are_split_where_pairs_of_products_pass_int16(
    make_detector: Callable[..., Detector], trace_once: Callable[[Detector], onnx.ModelProto]
) -> None:
    """Narrow layers at 8 bits: sums are far below 2^24, pairs are not below 2^15."""
    convolutions = []
    for pairs in (False, True):
        graph = gs.import_onnx(trace_once(make_detector("resnet23", 8)))
        for one in (*FOLDS, pack_weights("own", 21, int16_pairs=pairs)):
            one(graph)
        convolutions.append(_ops(graph).count("Conv"))
    assert convolutions[1] > convolutions[0]


def _chain(*steps: tuple[str, str]) -> gs.Graph:
    """``y`` of ``x`` by operators with a constant each."""
    x = gs.Variable("x", np.float32, ["N", 4, "H", "W"])
    rng = np.random.default_rng(5)
    nodes, tensor = [], x
    for number, (op, name) in enumerate(steps):
        value = rng.uniform(0.1, 1.5, (1, 4, 1, 1)).astype(np.float32)
        operand = gs.Constant(f"c{number}", value[0] if op == "PRelu" else value)
        inputs = [tensor] if op == "Relu" else [tensor, operand]
        out = gs.Variable(name, np.float32, ["N", 4, "H", "W"])
        nodes.append(gs.Node(op, f"{name}/{op}", inputs=inputs, outputs=[out]))
        tensor = out
    return gs.Graph(nodes, inputs=[x], outputs=[tensor], opset=21)


@pytest.mark.parametrize(
    ("steps", "held"),
    [
        ([("Mul", "a"), ("Mul", "b")], 1),
        ([("Add", "a"), ("Add", "b")], 1),
        ([("Mul", "a"), ("Add", "b")], 1),
        ([("Add", "a"), ("Mul", "b"), ("Add", "c"), ("PRelu", "d")], 3),
        ([("Mul", "a"), ("Relu", "b"), ("Add", "c")], 0),
        ([("Relu", "a"), ("PRelu", "b")], 1),
    ],
)
def test_neighbours_are_held_apart(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[npt.NDArray[Any]]],
    steps: list[tuple[str, str]],
    held: int,
) -> None:
    graph = _chain(*steps)
    x = np.random.default_rng(6).normal(0, 3, (2, 4, 5, 6)).astype(np.float32)
    x[0, 0, 0] = [0.0, -0.0, 1e-42, -1e-42, 3e37, -3e37]
    (before,) = run_model(to_model(graph.copy(), 21), optimize=False, x=x)
    outcome = hold_fusions(graph)
    assert outcome.applied == held
    assert _ops(graph).count("Max") == held
    (after,) = run_model(to_model(graph.copy(), 21), optimize=False, x=x)
    np.testing.assert_array_equal(after, before)
    assert not hold_fusions(graph).modified
    for node in graph.nodes:
        if node.op == "Max":
            assert node.inputs[1].values == LOWEST


def test_scale_and_bias_of_a_convolution_of_codes_stay_together(
    small: Detector, both_sides: Callable[..., Sides]
) -> None:
    """They are the INT8 kernel's own; the stem's sum of two parts is not."""
    first = (*FOLDS, pool_first, byte_stem, pack_weights("own", 21), in_bytes)
    sides = both_sides(small, first, hold_fusions)
    _assert_same(sides)
    behind = [
        node.outputs[0].outputs[0].outputs[0].outputs[0].op
        for node in sides.graph.nodes
        if node.op == "Conv" and not node.name.startswith("stem")
    ]
    assert behind == ["Add"] * len(behind)
    assert len(behind) > 0


def test_the_head_is_summed_in_blocks(small: Detector, both_sides: Callable[..., Sides]) -> None:
    sides = both_sides(small, FOLDS, block_head)
    assert sides.outcome.applied == 1
    (product,) = [node for node in sides.graph.nodes if node.op == "MatMul"]
    columns, blocks = product.inputs[1].shape
    assert (columns, blocks) == (64, 8)
    assert (np.count_nonzero(product.inputs[1].values, axis=1) == 1).all()
    np.testing.assert_array_equal(sides.before[0].shape, sides.after[0].shape)
    # Another order of the same sum: the last bits only.
    np.testing.assert_allclose(sides.after[0], sides.before[0], rtol=0, atol=1e-6)
