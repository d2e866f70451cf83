"""Cells of 2x2 pixels: the same sums, weights in INT8; left alone where they would not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmdd.exporter.passes.cell_stem import cell_stem, cell_weights, lower_cells
from qmdd.exporter.passes.channels_last import NHWC
from qmdd.exporter.passes.fold_stem import fold_npr_kernel
from qmdd.exporter.passes.transpose_rest import transpose_rest

I64 = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def _weights(size: int, top: int, seed: int) -> tuple[I64, int]:
    """A folded NPR kernel and its padding at the top."""
    kernel = np.random.default_rng(seed).integers(-top, top + 1, (5, 3, size, size))
    folded, grow = fold_npr_kernel(kernel, size // 2)
    return folded, size // 2 + grow


@given(
    size=st.sampled_from([3, 5, 7]),
    top=st.integers(1, 127),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_shares_add_up_to_the_weights(size: int, top: int, seed: int) -> None:
    folded, _ = _weights(size, top, seed)
    cells, repeats = cell_weights(folded)
    assert cells.dtype == np.int8
    assert cells.shape[1] % 4 == 0
    assert repeats == max(0, -(-int(np.abs(folded[:, :, ::2, ::2]).max()) // 127) - 1)
    wide = cells.astype(np.int64)
    corner = wide[:, :3] + sum(wide[:, 12 + 3 * r : 15 + 3 * r] for r in range(repeats))
    half = wide.shape[2]
    even = np.zeros((5, 3, 2 * half, 2 * half), dtype=np.int64)
    even[:, :, ::2, ::2] = corner
    even[:, :, ::2, 1::2], even[:, :, 1::2, ::2] = wide[:, 3:6], wide[:, 6:9]
    even[:, :, 1::2, 1::2] = wide[:, 9:12]
    np.testing.assert_array_equal(even[:, :, : folded.shape[2], : folded.shape[3]], folded)
    assert not even[:, :, folded.shape[2] :].any()
    assert not wide[:, 12 + 3 * repeats :].any()


def _graph(codes: I64, pads: list[int], strides: list[int], group: int = 1) -> gs.Graph:
    """A convolution of raw pixels as ``channels_last`` leaves it."""
    image = gs.Variable("image", np.uint8, ["N", 3, "H", "W"])
    turned, pixels, weight, y = (gs.Variable(n) for n in ("turned", "pixels", "weight", "y"))
    y.dtype, y.shape = np.dtype(np.float32), ["N", "P", "Q", len(codes)]
    stored = gs.Constant("codes", codes.astype(np.int16))
    one = gs.Constant("unit", np.array(1, dtype=np.float32))
    attrs = {"strides": strides, "pads": pads, "kernel_shape": list(codes.shape[2:])}
    nodes = [
        gs.Node("Transpose", "t", {"perm": [0, 2, 3, 1]}, [image], [turned]),
        gs.Node("Cast", "cast", {"to": 1}, [turned], [pixels]),
        gs.Node("DequantizeLinear", "dq", {}, [stored, one], [weight]),
        gs.Node("Conv", "stem", {**attrs, "group": group}, [pixels, weight], [y], domain=NHWC),
    ]
    return gs.Graph(nodes, inputs=[image], outputs=[y], opset=21)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("top", [1, 60, 127])
def test_sums_are_the_same(
    to_model: Callable[..., onnx.ModelProto],
    run_model: Callable[..., list[Array]],
    convolve: Callable[..., I64],
    size: int,
    top: int,
) -> None:
    """All pixels at their extremes among them: the corners' weights are far beyond INT8."""
    folded, pad = _weights(size, top, size)
    graph = _graph(folded, [pad, pad, size // 2, size // 2], [2, 2])
    assert cell_stem(graph).applied == 1
    assert not cell_stem(graph).modified
    (cells,) = [node for node in graph.nodes if node.op == "Cells"]
    assert cells.domain == NHWC
    assert cells.inputs[0] is graph.inputs[0]
    (conv,) = [node for node in graph.nodes if node.op == "Conv"]
    assert conv.inputs[1].inputs[0].inputs[0].shape[1] == cells.attrs["channels"]
    for one in (lower_cells, transpose_rest):
        assert one(graph).applied == 1
        assert not one(graph).modified
    images = np.random.default_rng(1).choice([0, 1, 254, 255], (2, 3, 34, 46)).astype(np.uint8)
    (found,) = run_model(to_model(graph, 21), optimize=False, image=images)
    expected = convolve(images, folded, 2, (pad, pad, size // 2, size // 2))
    np.testing.assert_array_equal(found.transpose(0, 3, 1, 2), expected)


@pytest.mark.parametrize(
    ("codes", "pads", "strides", "why"),
    [
        (np.ones((2, 3, 7, 7)), [3, 3, 3, 3], [2, 2], "not of stride 2 from an even pixel"),
        (np.ones((2, 3, 8, 8)), [4, 4, 3, 3], [1, 1], "not of stride 2 from an even pixel"),
        (np.full((2, 3, 8, 8), 128), [4, 4, 3, 3], [2, 2], "weights pass 127"),
        (np.ones((2, 3, 8, 6)), [4, 4, 3, 3], [2, 2], "are not square ones"),
    ],
)
def test_others_read_pixels(codes: Array, pads: list[int], strides: list[int], why: str) -> None:
    graph = _graph(codes.astype(np.int64), pads, strides)
    outcome = cell_stem(graph)
    assert outcome.applied == 0
    assert why in outcome.notes[0]
    assert [node.op for node in graph.nodes if node.domain] == ["Conv"]
