"""Chains folded into threshold tables: every float32 gets the code that the chain gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.base import constant
from qmdd.exporter.passes.fold_chain import fold_chain, fold_table
from qmdd.models.float_order import neighbours

F32 = npt.NDArray[np.float32]
#: One step of a chain: the operator and its values per channel (none for Relu).
Step = tuple[str, list[float]]

RADIUS = 4096
LARGEST = float(np.finfo(np.float32).max)


def _apply(step: Step, x: F32) -> F32:
    """One operation on float32 ``[C, m]``, written out anew; one IEEE rounding."""
    op, values = step
    column = np.array(values, dtype=np.float32)[:, None]
    if op == "Add":
        return x + column
    if op == "Mul":
        return x * column
    if op == "PRelu":
        return np.where(x < 0, x * column, x)
    return np.maximum(x, np.float32(0))


def _codes(steps: list[Step], table: F32, x: F32) -> npt.NDArray[np.int64]:
    """Codes of ``[C, m]`` by the definition: thresholds reached at the chain's end; NaN none."""
    with np.errstate(all="ignore"):
        for step in steps:
            x = _apply(step, x)
        reached = x[:, :, None] >= table.reshape(1, 1, -1)
    return reached.sum(axis=2)


def _folded_codes(table: F32, x: F32) -> npt.NDArray[np.int64]:
    return (x[:, :, None] >= table[:, None, :]).sum(axis=2)


def _graph(steps: list[Step], table: F32, channels: int, layer: str = "some.layer") -> gs.Graph:
    """The chain on ``x`` ``[N, channels, H, W]``, then ``MultiThreshold``."""
    x = gs.Variable("x", np.float32, ["N", channels, "H", "W"])
    y = gs.Variable("y", np.float32, ["N", channels, "H", "W"])
    nodes, last = [], x
    for index, (op, values) in enumerate(steps):
        out = gs.Variable(f"v{index}")
        inputs: list[gs.Tensor] = [last]
        if op != "Relu":
            shape = (-1, 1, 1) if op == "PRelu" else (1, -1, 1, 1)
            inputs.append(gs.Constant(f"c{index}", np.float32(values).reshape(shape)))
        nodes.append(gs.Node(op, name=f"step{index}", inputs=inputs, outputs=[out]))
        last = out
    nodes.append(
        gs.Node(
            "MultiThreshold",
            domain=DOMAIN,
            attrs={"layer": layer},
            inputs=[last, gs.Constant("table", table.reshape(1, -1))],
            outputs=[y],
        )
    )
    graph = gs.Graph(nodes, inputs=[x], outputs=[y], opset=21)
    return graph


def _table(graph: gs.Graph) -> F32:
    (node,) = [node for node in graph.nodes if node.op == "MultiThreshold"]
    found = constant(node.inputs[1])
    assert found is not None
    return found.astype(np.float32)


def _points(table: F32, channels: int, rng: np.random.Generator) -> F32:
    """For each channel: ``RADIUS`` neighbours of its thresholds, random bits (NaNs among them), the
    landmarks.
    """
    finite = np.where(np.isfinite(table), table, np.float32(0)).astype(np.float32)
    near = neighbours(finite, RADIUS).reshape(table.shape[0], -1)
    near = np.broadcast_to(near, (channels, near.shape[1]))
    bits = rng.integers(0, 2**32, (channels, 2000), dtype=np.uint32).view(np.float32)
    marks = np.float32([0.0, -0.0, LARGEST, -LARGEST, 1e-45, -1e-45, 1e-38, -1e-38])
    marks = np.concatenate([marks, np.float32([np.inf, -np.inf, np.nan])])
    marks = np.broadcast_to(marks, (channels, marks.size))
    return np.concatenate([near, bits, marks], axis=1)


numbers = st.one_of(
    st.floats(-4, 4, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1e-45, -1e-38, LARGEST, -LARGEST, 1e30]),
)
slopes = st.one_of(
    st.floats(0, 1, width=32), st.sampled_from([0.0, 1e-45, 1.5, 3.0, 2.0**100, LARGEST])
)
factors = st.one_of(
    st.floats(2.0**-20, 4, width=32), st.sampled_from([1e-45, 2.0**-126, 2.0**100, LARGEST])
)


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Step], F32, int]:
    """A chain with at least one step that varies per channel, and a table."""
    channels = draw(st.integers(1, 3))

    def per_channel(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=channels, max_size=channels))

    steps: list[Step] = []
    for op in draw(
        st.lists(st.sampled_from(["Add", "PRelu", "Mul", "Relu"]), min_size=1, max_size=4)
    ):
        values = {"Add": numbers, "PRelu": slopes, "Mul": factors}
        steps.append((op, per_channel(values[op]) if op in values else []))
    entries = st.one_of(numbers, st.sampled_from([-np.inf, np.inf]))
    table = draw(st.lists(entries, min_size=1, max_size=7))
    return steps, np.sort(np.float32(table)), channels


@given(chains(), st.integers(0, 2**31))
@settings(max_examples=120)
@example(([("Add", [1.0]), ("PRelu", [0.0]), ("Add", [0.25])], np.float32([0.1, 0.2, 0.3]), 1), 0)
@example(([("PRelu", [3.0]), ("Add", [-1e30])], np.float32([-np.inf, 0.0, np.inf]), 1), 0)
@example(([("Add", [-LARGEST]), ("PRelu", [0.0])], np.float32([-1.0, 0.0]), 1), 0)
def test_the_folded_table_gives_the_chains_codes(
    chain: tuple[list[Step], F32, int], seed: int
) -> None:
    """Around every threshold, on random bit patterns and at the ends, in every channel."""
    steps, table, channels = chain
    graph = _graph(steps, table, channels)
    outcome = fold_chain(graph)
    assert (outcome.applied, outcome.notes) == (1, [])
    assert [node.op for node in graph.nodes] == ["MultiThreshold"]
    folded = _table(graph)
    per_channel = any(values for _, values in steps)
    assert folded.shape == (channels if per_channel else 1, table.size)
    assert bool((folded[:, 1:] >= folded[:, :-1]).all())
    x = _points(folded, channels, np.random.default_rng(seed))
    np.testing.assert_array_equal(_folded_codes(folded, x), _codes(steps, table, x))


@given(
    st.lists(numbers, min_size=1, max_size=4),
    st.lists(slopes, min_size=4, max_size=4),
    st.lists(numbers, min_size=4, max_size=4),
)
@settings(max_examples=40)
def test_a_threshold_is_the_first_float_that_reaches_its_code(
    shifts: list[float], prelu: list[float], table: list[float]
) -> None:
    """The entry itself has the code, its lower neighbour has not: no table is closer."""
    channels = len(shifts)
    steps: list[Step] = [("Add", shifts), ("PRelu", prelu[:channels])]
    thresholds = np.sort(np.float32(table))
    folded = fold_table(thresholds, [lambda x, s=step: _apply(s, x) for step in steps], channels)
    for index in range(thresholds.size):
        column = folded[:, index]
        inner = np.isfinite(column)
        if not inner.any():
            continue
        at = np.where(inner, column, np.float32(0))
        below = neighbours(at, 1)[:, 0]
        assert np.all(_codes(steps, thresholds, at[:, None])[:, 0][inner] > index)
        low = _codes(steps, thresholds, below[:, None])[:, 0]
        assert np.all((low <= index)[inner & (column > -LARGEST)])


REAL: list[Step] = [
    ("Add", [0.1, -0.3, 0.0]),
    ("PRelu", [0.25, 0.0, 1.7]),
    ("Add", [-0.2, 0.05, 0.4]),
]
THRESHOLDS = np.float32([-0.31, 0.052, 0.77])


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    "steps",
    [
        REAL,
        [("Mul", [1.5, 0.01, 300.0]), *REAL],
        [("Relu", []), *REAL],
        [*REAL, ("Relu", [])],
        [("PRelu", [0.5, 0.25, 0.0])],
    ],
    ids=lambda steps: "-".join(op for op, _ in steps),
)
def test_both_sides_give_the_same_codes_in_onnxruntime(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    steps: list[Step],
    optimize: bool,
) -> None:
    """The explicit chain and the folded one, on the neighbours of every threshold and beyond."""
    graph = _graph(steps, THRESHOLDS, 3)
    explicit = to_model(graph)
    assert fold_chain(graph).applied == 1
    folded = to_model(graph)
    assert [node.op_type for node in folded.graph.node] == ["MultiThreshold"]
    x = _points(_table(graph), 3, np.random.default_rng(2))
    (before,) = run_model(explicit, optimize, x=x.reshape(1, 3, 1, -1))
    (after,) = run_model(folded, optimize, x=x.reshape(1, 3, 1, -1))
    assert np.unique(before).size >= 3  # a Relu beside the thresholds leaves no code 0
    np.testing.assert_array_equal(before.astype(np.int64), after.astype(np.int64))
    np.testing.assert_array_equal(after[0, :, 0].astype(np.int64), _codes(steps, THRESHOLDS, x))


@pytest.mark.parametrize(
    ("steps", "left", "note"),
    [
        (
            [REAL[0], ("PRelu", [0.25, -0.1, -1e-45]), REAL[2]],
            ["Add", "PRelu", "MultiThreshold"],
            "some.layer: 2 of 3 PReLU slopes are negative, so not monotone; "
            "the chain before it stays explicit",
        ),
        (
            [("Mul", [1.0, 2.0, -0.5]), *REAL],
            ["Mul", "MultiThreshold"],
            "some.layer: 1 of 3 factors are not positive, so not increasing; "
            "the chain before it stays explicit",
        ),
        (
            [("Mul", [1.0, 0.0, 0.5]), *REAL],
            ["Mul", "MultiThreshold"],
            "some.layer: 1 of 3 factors are not positive, so not increasing; "
            "the chain before it stays explicit",
        ),
    ],
    ids=["slope", "factor", "zero"],
)
def test_what_is_not_monotone_stays_and_the_rest_is_folded(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    steps: list[Step],
    left: list[str],
    note: str,
) -> None:
    """The part behind it is in the table, ``[C, n]``; a note names the layer and says why."""
    graph = _graph(steps, THRESHOLDS, 3)
    explicit = to_model(graph)
    outcome = fold_chain(graph)
    assert outcome.applied == 1
    assert outcome.notes == [note]
    assert [node.op for node in graph.nodes] == left
    assert _table(graph).shape == (3, 3)
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(0, 2, (3, 4000)), rng.normal(0, 0.2, (3, 4000))], axis=1)
    x = x.astype(np.float32).reshape(1, 3, 80, 100)
    (before,) = run_model(explicit, x=x)
    (after,) = run_model(to_model(graph), x=x)
    np.testing.assert_array_equal(before, after)
    again = fold_chain(graph)
    assert (again.applied, again.notes) == (0, [note])


def test_a_chain_that_ends_in_a_negative_slope_is_left_whole() -> None:
    graph = _graph([REAL[0], ("PRelu", [0.1, 0.2, -0.3])], THRESHOLDS, 3)
    outcome = fold_chain(graph)
    assert (outcome.applied, outcome.modified) == (0, False)
    assert outcome.notes[0].startswith("some.layer: 1 of 3 PReLU slopes are negative")
    assert _table(graph).shape == (1, 3)


def test_it_applies_once(to_model: Callable[..., Any]) -> None:
    """The second run changes nothing and says nothing."""
    graph = _graph(REAL, THRESHOLDS, 3)
    assert fold_chain(graph).applied == 1
    before = to_model(graph).SerializeToString()
    again = fold_chain(graph)
    assert (again.applied, again.modified, again.notes) == (0, False, [])
    assert to_model(graph).SerializeToString() == before


def test_what_else_reads_the_chain_still_does(
    to_model: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    """A step whose result is used elsewhere is folded for the quantizer and kept for the other."""
    graph = _graph(REAL, THRESHOLDS, 3)
    middle = graph.tensors()["v1"]
    middle.dtype, middle.shape = np.float32, ["N", 3, "H", "W"]
    graph.outputs.append(middle)
    explicit = to_model(graph)
    assert fold_chain(graph).applied == 1
    x = np.random.default_rng(4).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)
    for before, after in zip(
        run_model(explicit, x=x), run_model(to_model(graph), x=x), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_a_constant_may_stand_first_and_be_one_number(
    to_model: Callable[..., Any], run_model: Callable[..., Any]
) -> None:
    """``0.3 + x`` and a factor of shape [] fold; the table of shared constants has one row."""
    graph = _graph([("Add", [0.0]), ("Mul", [1.0])], THRESHOLDS, 3)
    first, second = graph.nodes[0], graph.nodes[1]
    first.inputs = [gs.Constant("left", np.float32([[[[0.3]]]])), first.inputs[0]]
    second.inputs[1] = gs.Constant("scalar", np.array(0.5, dtype=np.float32))
    explicit = to_model(graph)
    assert fold_chain(graph).applied == 1
    assert _table(graph).shape == (1, 3)
    x = np.random.default_rng(5).normal(0, 1, (1, 3, 50, 50)).astype(np.float32)
    np.testing.assert_array_equal(run_model(explicit, x=x)[0], run_model(to_model(graph), x=x)[0])


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3, 1), (1, 3, 1, 2), (2, 3, 1, 1)])
def test_a_constant_that_varies_otherwise_ends_the_chain(shape: tuple[int, ...]) -> None:
    """Along a side or the batch: not per channel, so not in a table."""
    graph = _graph(REAL, THRESHOLDS, 3)
    graph.nodes[0].inputs[1] = gs.Constant("other", np.zeros(shape, dtype=np.float32))
    assert fold_chain(graph).applied == 1
    assert [node.op for node in graph.nodes] == ["Add", "MultiThreshold"]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("op", ["Add", "Mul", "PRelu"])
def test_a_constant_that_is_not_finite_ends_the_chain(op: str, value: float) -> None:
    """``0 * inf`` is no number: such a step has no table."""
    graph = _graph([(op, [1.0, value, 1.0]), REAL[2]], THRESHOLDS, 3)
    assert fold_chain(graph).applied == 1
    assert [node.op for node in graph.nodes] == [op, "MultiThreshold"]


def test_thresholds_that_are_not_one_constant_row_are_left() -> None:
    graph = _graph(REAL, THRESHOLDS, 3)
    node = graph.nodes[-1]
    node.inputs[1] = gs.Constant("rows", np.tile(THRESHOLDS, (3, 1)))
    outcome = fold_chain(graph)
    assert outcome.applied == 0
    assert outcome.notes == ["some.layer: its thresholds are not one constant row; left as it is"]


def test_a_quantizer_that_reads_the_input_has_no_chain() -> None:
    graph = _graph([], THRESHOLDS, 3)
    outcome = fold_chain(graph)
    assert (outcome.applied, outcome.notes) == (0, [])


def test_the_strategies_reach_what_they_are_for() -> None:
    """Slope zero behind a shift makes whole channels constant but for minus infinity, which times
    zero is no number; a tiny slope makes them constant but for minus infinity, too.
    """
    for slope in (0.0, 1e-45):
        graph = _graph([("Add", [0.0]), ("PRelu", [slope]), ("Add", [2.0])], THRESHOLDS, 1)
        fold_chain(graph)
        assert (_table(graph) == -LARGEST).all()
