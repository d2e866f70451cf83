"""The stem on INT8 pixels: the same sums as on raw pixels, at every border."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
import pytest

from qmdd.exporter.passes.base import insert
from qmdd.exporter.passes.engine_stem import engine_stem
from qmdd.exporter.passes.engine_weights import engine_weights
from qmdd.exporter.passes.fold_stem import fold_npr_kernel

I64 = npt.NDArray[np.int64]


def _graph(kernel: I64, stride: int, pads: list[int]) -> gs.Graph:
    """``Conv(Cast(image), DequantizeLinear(kernel, 1))``."""
    image = gs.Variable("image", np.uint8, ["N", kernel.shape[1], "H", "W"])
    graph = gs.Graph([], inputs=[image], outputs=[], opset=21)
    pixels = insert(graph, "Cast", "pixels", [image], {"to": 1})
    held = gs.Constant("stem.weight", kernel.astype(np.int16))
    one = gs.Constant("unit", np.array(1, dtype=np.float32))
    values = insert(graph, "DequantizeLinear", "w", [held, one])
    acc = insert(graph, "Conv", "acc", [pixels, values], {"pads": pads, "strides": [stride] * 2})
    acc.dtype, acc.shape = np.float32, ["N", kernel.shape[0], "P", "Q"]
    graph.outputs = [acc]
    return graph


@pytest.mark.parametrize(("kernel", "pad"), [(7, 3), (3, 1), (5, 2), (3, 0)])
@pytest.mark.parametrize("sides", [(8, 8), (10, 14), (4, 6)])
@pytest.mark.parametrize("optimize", [True, False])
def test_shifted_pixels_give_the_sums_of_raw_ones(
    to_model: Callable[..., Any],
    run_model: Callable[..., Any],
    convolve: Callable[..., I64],
    kernel: int,
    pad: int,
    sides: tuple[int, int],
    optimize: bool,
) -> None:
    """The folded kernel sums to zero over every cell, also where half of it is padding."""
    rng = np.random.default_rng(kernel)
    raw = rng.integers(-127, 128, size=(4, 3, kernel, kernel))
    folded, grow = fold_npr_kernel(raw, pad)
    pads = [pad + grow, pad + grow, pad, pad]
    graph = _graph(folded, 2, pads)
    assert engine_stem(graph).applied == 1
    assert engine_weights("int4", "int8", None)(graph).applied == 1
    image = rng.integers(0, 256, size=(2, 3, *sides)).astype(np.uint8)
    image[0, 0, 0], image[1, :, -1] = 0, 255
    model = to_model(graph, opset=17)
    (got,) = run_model(model, optimize, image=image)
    np.testing.assert_array_equal(got, convolve(image, folded, 2, tuple(pads)))
    makers = {out: node for node in model.graph.node for out in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    for conv in convs:
        assert [makers[name].op_type for name in conv.input] == ["DequantizeLinear"] * 2
    assert len(convs) == 1 + bool(np.abs(folded).max() > 127)


@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [
        (np.ones((1, 3, 4, 4), dtype=np.int64), 2, [2, 2, 1, 1]),
        (fold_npr_kernel(np.ones((1, 3, 7, 7), dtype=np.int64), 3)[0], 2, [3, 3, 3, 3]),
        (fold_npr_kernel(np.ones((1, 3, 7, 7), dtype=np.int64), 3)[0], 1, [4, 4, 3, 3]),
    ],
)
def test_a_constant_that_does_not_drop_out_leaves_the_stem_in_float(
    kernel: I64, stride: int, pads: list[int]
) -> None:
    """RGB kernels, odd padding, odd strides; a note says so."""
    graph = _graph(kernel, stride, pads)
    outcome = engine_stem(graph)
    assert not outcome.modified
    assert outcome.notes == ["no folded NPR stem: the first layer runs in float"]


def test_it_applies_once() -> None:
    """The second run changes nothing."""
    folded, _ = fold_npr_kernel(np.ones((1, 3, 7, 7), dtype=np.int64), 3)
    graph = _graph(folded, 2, [4, 4, 3, 3])
    engine_stem(graph)
    assert not engine_stem(graph).modified
