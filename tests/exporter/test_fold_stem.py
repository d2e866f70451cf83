"""NPR folded into the stem: the same integers, at every edge, and refused where it would not be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmdd.exporter.errors import ExportError
from qmdd.exporter.passes.base import constant
from qmdd.exporter.passes.fold_stem import fold_npr_kernel, fold_stem
from qmdd.models.npr import npr

I64 = npt.NDArray[np.int64]
Convolve = Callable[..., I64]


def _residual(x: I64) -> I64:
    """NPR (paper Eq. 1-2) in int64: each pixel minus the top left one of its 2x2 cell."""
    corner = x[..., ::2, ::2]
    return x - corner.repeat(2, axis=-2).repeat(2, axis=-1)


def _graph(
    codes: npt.NDArray[Any], stride: int, pads: list[int], scale_only: bool = False
) -> gs.Graph:
    """``Conv(x - Resize2(Slice2(x)), DequantizeLinear(codes, 1))``, as the tracer writes it."""

    def const(name: str, values: list[Any], dtype: type = np.int64) -> gs.Constant:
        return gs.Constant(name, np.array(values, dtype=dtype))

    c_out, c_in, kernel = codes.shape[0], codes.shape[1], codes.shape[2]
    x = gs.Variable("x", np.float32, ["N", c_in, "H", "W"])
    y = gs.Variable("y", np.float32, ["N", c_out, "P", "Q"])
    rows, cell, up, residual, weight = (
        gs.Variable(n) for n in ("rows", "cell", "up", "residual", "weight")
    )
    zero, end, two = const("zero", [0]), const("end", [2**62]), const("two", [2])
    axes = [const("axis2", [2]), const("axis3", [3])]
    scales = const("scales", [1, 1, 2, 2], np.float32)
    integers = gs.Constant("codes", codes)
    one = gs.Constant("unit", np.array(1, dtype=np.float32))
    nodes = [
        gs.Node("Slice", inputs=[x, zero, end, axes[0], two], outputs=[rows]),
        gs.Node("Slice", inputs=[rows, zero, end, axes[1], two], outputs=[cell]),
        gs.Node(
            "Resize",
            attrs={
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            },
            inputs=[cell, gs.Variable.empty(), scales],
            outputs=[up],
        ),
        gs.Node("Sub", inputs=[x, up], outputs=[residual]),
        gs.Node("DequantizeLinear", inputs=[integers, one], outputs=[weight]),
        gs.Node(
            "Conv",
            name="stem",
            attrs={
                "strides": [stride, stride],
                "pads": pads,
                "kernel_shape": [kernel, kernel],
                "dilations": [1, 1],
                "group": 1,
            },
            inputs=[residual, integers if scale_only else weight],
            outputs=[y],
        ),
    ]
    if scale_only:
        del nodes[4]
    return gs.Graph(nodes, inputs=[x], outputs=[y], opset=21)


@given(
    st.sampled_from([1, 3, 5, 7]),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(4, 9),
    st.integers(4, 9),
    st.sampled_from([2, 4]),
    st.integers(0, 2**31),
)
@settings(max_examples=120)
def test_a_kernel_on_pixels_gives_the_sums_of_the_kernel_on_residuals(
    convolve: Convolve,
    kernel: int,
    pad: int,
    c_in: int,
    c_out: int,
    half_height: int,
    half_width: int,
    stride: int,
    seed: int,
) -> None:
    """int64 against int64, zero padding and all edges included, for even sides and strides."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (c_out, c_in, kernel, kernel))
    pixels = rng.integers(0, 256, (2, c_in, 2 * half_height, 2 * half_width))
    folded, grow = fold_npr_kernel(weight, pad)
    assert folded.shape == (c_out, c_in, kernel + grow, kernel + grow)
    want = convolve(_residual(pixels), weight, stride, (pad, pad, pad, pad))
    have = convolve(pixels, folded, stride, (pad + grow, pad + grow, pad, pad))
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(("kernel", "pad", "size"), [(7, 3, 8), (3, 1, 4), (3, 0, 3), (5, 2, 5)])
def test_the_kernel_grows_by_the_paddings_parity(kernel: int, pad: int, size: int) -> None:
    """7x7 becomes 8x8, 3x3 becomes 4x4 (DESIGN 3.4); every cell of the new kernel sums to zero."""
    weight = np.random.default_rng(0).integers(-127, 128, (4, 3, kernel, kernel))
    folded, _ = fold_npr_kernel(weight, pad)
    assert folded.shape == (4, 3, size, size)
    even = np.pad(folded, ((0, 0), (0, 0), (0, size % 2), (0, size % 2)))
    cells = even.reshape(4, 3, even.shape[2] // 2, 2, even.shape[3] // 2, 2).sum(axis=(3, 5))
    assert not cells.any()  # NPR of a flat cell is zero


def test_the_residual_here_is_the_models() -> None:
    """The formula that these tests compute with is the one that the detector runs."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 6, 10))
    have = npr(torch.from_numpy(pixels).float()).numpy().astype(np.int64)
    np.testing.assert_array_equal(have, _residual(pixels))


@pytest.mark.parametrize(("kernel", "pad"), [(7, 3), (3, 1), (5, 2), (3, 0)])
@pytest.mark.parametrize("optimize", [True, False])
def test_the_graph_computes_the_same_integers(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    convolve: Convolve,
    kernel: int,
    pad: int,
    optimize: bool,
) -> None:
    """Before and after the fold, in ONNX Runtime, against int64."""
    rng = np.random.default_rng([kernel, pad])
    codes = rng.integers(-127, 128, (5, 3, kernel, kernel))
    pixels = rng.integers(0, 256, (2, 3, 22, 34))
    graph = _graph(codes.astype(np.int8), 2, [pad] * 4)
    feeds = {"x": pixels.astype(np.float32)}
    (before,) = run_model(to_model(graph), optimize, **feeds)
    outcome = fold_stem(graph)
    assert (outcome.applied, outcome.notes) == (1, [])
    assert [node.op for node in graph.nodes] == ["DequantizeLinear", "Conv"]
    (after,) = run_model(to_model(graph), optimize, **feeds)
    want = convolve(_residual(pixels), codes, 2, (pad, pad, pad, pad))
    for have in (before, after):
        np.testing.assert_array_equal(have.astype(np.int64), want)
        np.testing.assert_array_equal(have, np.rint(have))


def test_it_applies_once(to_model: Callable[..., Any]) -> None:
    """The second run changes nothing and says nothing."""
    graph = _graph(np.ones((2, 3, 7, 7), dtype=np.int8), 2, [3] * 4)
    assert fold_stem(graph).applied == 1
    before = to_model(graph).SerializeToString()
    again = fold_stem(graph)
    assert (again.applied, again.modified, again.notes) == (0, False, [])
    assert to_model(graph).SerializeToString() == before


def test_the_folded_weights_are_int16() -> None:
    """8-bit weights add up to more than 127 where three taps share a corner."""
    graph = _graph(np.full((1, 1, 7, 7), -127, dtype=np.int8), 2, [3] * 4)
    fold_stem(graph)
    values = constant(graph.nodes[0].inputs[0])
    assert values is not None
    assert values.dtype == np.int16
    assert int(values.max()) == 3 * 127


def test_float_weights_leave_npr_where_it_is() -> None:
    graph = _graph(np.ones((2, 3, 7, 7), dtype=np.float32), 2, [3] * 4, scale_only=True)
    outcome = fold_stem(graph)
    assert outcome.applied == 0
    assert outcome.notes == ["stem: stem weights are not integers; NPR stays explicit"]
    assert "Resize" in [node.op for node in graph.nodes]


@pytest.mark.parametrize(
    ("stride", "pads", "why"),
    [
        (1, [3, 3, 3, 3], r"stride \[1, 1\] is not even"),
        (3, [3, 3, 3, 3], r"stride \[3, 3\] is not even"),
        (2, [3, 3, 2, 2], r"pads \[3, 3, 2, 2\] differ"),
    ],
)
def test_what_has_no_period_of_two_stays_explicit(stride: int, pads: list[int], why: str) -> None:
    graph = _graph(np.ones((2, 3, 7, 7), dtype=np.int8), stride, pads)
    outcome = fold_stem(graph)
    assert outcome.applied == 0
    assert len(outcome.notes) == 1

    assert re.search(f"^stem: {why}; NPR stays explicit$", outcome.notes[0])


def test_another_subtraction_is_no_npr() -> None:
    """A slice that starts at 1, or steps by 3, is something else: left alone without a word."""
    for name, value in (("zero", 1), ("two", 3)):
        graph = _graph(np.ones((2, 3, 7, 7), dtype=np.int8), 2, [3] * 4)
        graph.tensors()[name].values = np.array([value], dtype=np.int64)
        outcome = fold_stem(graph)
        assert (outcome.applied, outcome.notes) == (0, [])


def test_sums_that_pass_the_exact_limit_are_refused() -> None:
    """``255 * sum|W|`` at 2^24 or above: float32 would round."""
    codes = np.zeros((1, 1, 7, 7), dtype=np.int16)
    codes[0, 0, ::2, ::2] = 65793 // 32  # after folding each tap stands twice
    fold_stem(_graph(codes, 2, [3] * 4))
    codes[0, 0, 0, 0] += 2000
    with pytest.raises(ExportError, match=r"stem: its sums pass 2\^24"):
        fold_stem(_graph(codes, 2, [3] * 4))
