"""Folded threshold tables against the source quantizers, float by float."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from qmdd.exporter.lower import onnx_for_target
from qmdd.exporter.targets import find_target
from qmdd.models import ActivationChain, Detector, quantised_chains
from qmdd.models.checkpoint import load_checkpoint, tables
from qmdd.models.float_order import neighbours
from qmdd.models.zoo import builtin_checkpoint

F32 = npt.NDArray[np.float32]

#: Neighbours on either side of every threshold of a folded table, and of a layer's own.
FOLDED_RADIUS = 1 << 12
OWN_RADIUS = 1 << 20
#: Channels of a layer that are looked at in full width.
CHANNELS = 4


def _table(model: onnx.ModelProto, layer: str, top: int) -> F32:
    """The layer's table ``[C, top]`` as it stands in an exported model."""
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    if f"{layer}.table" in held:
        return held[f"{layer}.table"].reshape(-1, top)
    return np.stack([held[f"{layer}.t{i}"].reshape(-1) for i in range(top)], axis=1)


def _source(
    layer: ActivationChain, channels: npt.NDArray[np.int64]
) -> Callable[[F32], npt.NDArray[np.int64]]:
    """What a table stands for, in the model's own modules: float32 ``[c, m]`` to codes.

    The whole activation chain of some channels; where a slope of the layer is negative, what
    stands behind the PReLU.
    """
    chain = copy.deepcopy(layer)
    for shift in (chain.shift_in, chain.shift_out):
        shift.bias = torch.nn.Parameter(shift.bias.detach()[channels])
    prelu = torch.nn.PReLU(len(channels))
    prelu.weight = torch.nn.Parameter(layer.prelu.weight.detach()[channels])
    chain.prelu = prelu
    whole = bool((layer.prelu.weight >= 0).all())
    quantizer: Any = chain.quantizer

    def codes(x: F32) -> npt.NDArray[np.int64]:
        given = torch.from_numpy(x).reshape(1, x.shape[0], 1, -1)
        with torch.no_grad():
            found = chain.codes(given).codes if whole else quantizer.codes(chain.shift_out(given))
        return found.numpy()[0, :, 0].astype(np.int64)

    return codes


def _count(table: F32, x: F32) -> npt.NDArray[np.int64]:
    """Codes of ``[c, m]`` by a table ``[c, n]``."""
    rows = [
        np.searchsorted(row, values, side="right") for row, values in zip(table, x, strict=True)
    ]
    return np.stack(rows)


def _check(table: F32, codes: Callable[[F32], npt.NDArray[np.int64]], radius: int) -> int:
    """Every float within ``radius`` of every threshold; the number of floats compared."""
    compared = 0
    for column in table.T:
        finite = np.where(np.isfinite(column), column, np.float32(0)).astype(np.float32)
        x = neighbours(finite, radius)
        np.testing.assert_array_equal(codes(x), _count(table, x))
        compared += x.size
    return compared


@pytest.mark.parametrize(
    ("bits", "options"),
    [
        (2, {}),
        (3, {"activation": "lsq"}),
        (4, {"activation": "minmax", "slr": False}),
        (8, {"activation": "n2uq"}),
    ],
)
def test_tables_of_every_kind_are_the_sources(
    make_detector: Callable[..., Detector],
    trace_once: Callable[[Detector], onnx.ModelProto],
    bits: int,
    options: dict[str, Any],
) -> None:
    """Shift, PReLU, shift and quantizer in PyTorch, against the exported table, each channel."""
    detector = make_detector(bits=bits, **options)
    lowered = onnx_for_target(trace_once(detector), find_target("onnx"), "own", 21)
    top = 2**bits - 1
    for name, layer in quantised_chains(detector)[::3]:
        table = _table(lowered.model, name, top)
        channels = np.arange(table.shape[0])[:CHANNELS]
        assert _check(table[channels], _source(layer, channels), 64 if bits == 8 else 1024)
        # Also far from any threshold: random bits, and the ends of the line.
        bits_of = np.random.default_rng(0).integers(0, 2**32, (len(channels), 4096))
        x = bits_of.astype(np.uint32).view(np.float32)
        x = np.where(np.isfinite(x), x, np.float32(0))
        np.testing.assert_array_equal(_source(layer, channels)(x), _count(table[channels], x))


@pytest.fixture(scope="module")
def built_in() -> tuple[Detector, dict[str, F32]]:
    """The built-in ResNet-23 at 2 bits and its folded tables by layer."""
    path = builtin_checkpoint("resnet23", 2)
    if path is None:
        pytest.skip("the built-in checkpoint resnet23-w2a2 is not there")
    from qmdd.exporter.trace import canonical_from_detector

    detector = load_checkpoint(path)
    lowered = onnx_for_target(canonical_from_detector(detector), find_target("onnx"), "own", 21)
    names = [name for name, _ in quantised_chains(detector)]
    return detector, {name: _table(lowered.model, name, 3) for name in names}


def test_the_built_in_tables_are_the_sources(built_in: tuple[Detector, dict[str, F32]]) -> None:
    """All 18 layers, 32 channels of each: every float32 within 2^12 neighbours.

    Where training left a negative slope, the table is that of the chain behind the PReLU.
    """
    detector, folded = built_in
    compared = 0
    for name, layer in quantised_chains(detector):
        table = folded[name]
        assert table.shape == (layer.shift_in.bias.numel(), 3)
        channels = np.linspace(0, table.shape[0] - 1, 32).astype(np.int64)
        compared += _check(table[channels], _source(layer, channels), FOLDED_RADIUS)
    assert compared == 18 * 32 * 3 * (2 * FOLDED_RADIUS + 1)


def test_the_built_in_quantizers_are_their_tables(
    built_in: tuple[Detector, dict[str, F32]],
) -> None:
    """Each layer's quantizer alone: every float32 within 2^20 neighbours."""
    detector, _ = built_in
    own = tables(detector)
    for name, layer in quantised_chains(detector):
        quantizer: Any = layer.quantizer

        def codes(x: F32, quantizer: Any = quantizer) -> npt.NDArray[np.int64]:
            return quantizer.codes(torch.from_numpy(x)).numpy().astype(np.int64)

        _check(own[name].reshape(1, -1), codes, OWN_RADIUS)
