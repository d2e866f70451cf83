"""Parameters, multiply-adds and widths, against torch's own counter and counts by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qmdd.models import (
    ARCHITECTURES,
    CQB,
    ActivationChain,
    Detector,
    QuantConv2d,
    Stem,
    build_detector,
)
from qmdd.models.checkpoint import freeze
from qmdd.models.stats import LayerStats, layer_stats, parameters

DetectorFactory = Callable[..., Detector]

#: Of the full-precision twins; counted layer by layer in test_detector.py, test_mobilenet.py,
#: test_npr_resnet.py and test_n2uq_resnet.py.
PARAMETERS = {
    "resnet23": 15_911_443,
    "resnet34": 21_307_041,
    "resnet50": 23_574_193,
    "mobilenetv2": 2_273_812,
    "npr_resnet50": 1_437_782,
    "n2uq_resnet18": 11_192_977,
    "n2uq_resnet34": 21_317_857,
    "n2uq_resnet50": 23_617_457,
}
#: Multiply-adds at 256 pixels in G; the paper's Table 4 has 2.7 for ResNet-23.
GIGA = {
    "resnet23": 2.67,
    "resnet34": 4.78,
    "resnet50": 5.34,
    "mobilenetv2": 0.39,
    "npr_resnet50": 2.24,
    "n2uq_resnet18": 2.37,
    "n2uq_resnet34": 4.78,
    "n2uq_resnet50": 5.34,
}


def _counted(network: nn.Module, images: Tensor) -> int:
    """Multiply-adds as torch counts them while ``network`` runs (two operations each)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("side", [256, 71])
def test_multiply_adds_are_torchs(arch: str, side: int) -> None:
    """The twin's convolutions and linear layer, at a usual side and at an odd one."""
    with torch.device("meta"):
        twin = build_detector(arch, 32).eval()
        want = _counted(twin, torch.empty(1, 3, side, side, dtype=torch.uint8))
        quantised = build_detector(arch, 2)
    rows = layer_stats(twin, side)
    assert sum(row.multiply_adds for row in rows) == want
    ours = layer_stats(quantised, side)
    assert [(r.name, r.kind, r.weights, r.multiply_adds, r.shape) for r in ours] == [
        (r.name, r.kind, r.weights, r.multiply_adds, r.shape) for r in rows
    ]
    if side == 256:
        assert round(want / 1e9, 2) == GIGA[arch]


def test_multiply_adds_of_numbers_are_those_of_shapes(tiny_detector: DetectorFactory) -> None:
    """Counted over a real run of a narrow twin: nothing depends on the meta device."""
    twin = tiny_detector("resnet50", 32)
    want = _counted(twin, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert sum(row.multiply_adds for row in layer_stats(twin, 64)) == want > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("bits", [1, 2, 32])
def test_parameters_are_the_twins(arch: str, bits: int) -> None:
    """However wide: the twin's own number, which leaves out what quantizers learn."""
    with torch.device("meta"):
        detector = build_detector(arch, bits)
        twin = build_detector(arch, 32)
    assert parameters(detector) == PARAMETERS[arch]
    assert sum(p.numel() for p in twin.parameters()) == PARAMETERS[arch]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weights_are_those_of_the_layers(arch: str) -> None:
    """All parameters but batch-norms, shifts, PReLUs, alphas and the linear layer's bias."""
    with torch.device("meta"):
        twin = build_detector(arch, 32)
    rows = layer_stats(twin, 64)
    want = {
        name: module.weight.numel()  # type: ignore[union-attr]
        for name, module in twin.named_modules()
        if isinstance(module, (QuantConv2d, nn.Linear))
    }
    assert {row.name: row.weights for row in rows} == want
    assert len(rows) == len(want)
    linear = [row for row in rows if row.kind == "linear"]
    assert [row.name for row in linear] == ["head.fc"]
    depthwise = [row.name for row in rows if row.kind == "depthwise"]
    assert len(depthwise) == (17 if arch == "mobilenetv2" else 0)
    assert all(name.endswith(".depthwise.conv") for name in depthwise)


@pytest.fixture(scope="module")
def mixed(tiny_detector: DetectorFactory) -> Detector:
    """ResNet-23 at 2 bits with two layers at other widths."""
    return tiny_detector(layer_bits={"stages.0.0.conv1": 8, "stages.1.0.conv1": 1})


def test_rows_are_what_runs_in_the_order_in_which_it_runs(mixed: Detector) -> None:
    """Names and output shapes, against hooks on a real evaluation of the quantised network."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    handles = [
        module.register_forward_hook(
            lambda _module, _inputs, out, name=name: seen.append((name, tuple(out.shape[1:])))
        )
        for name, module in mixed.named_modules()
        if isinstance(module, QuantConv2d)
    ]
    with torch.no_grad():
        mixed(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    for handle in handles:
        handle.remove()
    rows = layer_stats(mixed, 64)
    assert [(row.name, row.shape) for row in rows] == [*seen, ("head.fc", (1,))]


def test_widths_are_those_of_the_layer(mixed: Detector) -> None:
    """Weights as configured; codes as the quantizer makes them that the layer reads."""
    rows = {row.name: row for row in layer_stats(mixed, 64)}

    def widths(name: str) -> tuple[int, int]:
        return rows[name].weight_bits, rows[name].code_bits

    assert widths("stem.conv") == (8, 8)
    assert widths("stages.0.0.conv1.conv") == (8, 8)
    assert widths("stages.0.0.conv2.conv") == (2, 2)
    assert widths("stages.1.0.conv1.conv") == (1, 1)
    assert widths("stages.1.0.downsample") == (2, 1)  # it reads the codes of conv1
    assert widths("stages.2.0.downsample") == (2, 2)
    assert widths("head.fc") == (32, 32)


def test_the_twin_is_32_bits_all_over(tiny_detector: DetectorFactory) -> None:
    """The stem too."""
    rows = layer_stats(tiny_detector(bits=32), 64)
    assert {(row.weight_bits, row.code_bits) for row in rows} == {(32, 32)}


def test_a_frozen_detector_counts_the_same(tiny_detector: DetectorFactory) -> None:
    """Its weights are codes, of which there are as many."""
    latent = tiny_detector("mobilenetv2", width=0.125)
    rows, count = layer_stats(latent, 64), parameters(latent)
    frozen = freeze(latent)
    assert layer_stats(frozen, 64) == rows
    assert parameters(frozen) == count


def test_counting_neither_runs_nor_changes_the_network(tiny_detector: DetectorFactory) -> None:
    """In training mode, where a forward would move batch-norm's statistics: all stays as it was."""
    detector = tiny_detector().train()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    modules = [type(module) for module in detector.modules()]
    first = layer_stats(detector, 64)
    parameters(detector)
    assert layer_stats(detector, 64) == first
    assert detector.training
    assert [type(module) for module in detector.modules()] == modules
    assert not any(module._forward_hooks for module in detector.modules())
    state = detector.state_dict()
    assert state.keys() == before.keys()
    for key, value in state.items():
        assert torch.equal(value, before[key]), key
    assert not any(p.is_meta for p in detector.parameters())
    logits: Any = detector.eval()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert bool(torch.isfinite(logits).all())


class _Own(nn.Module):
    """A network of our layers that is no detector, and runs one of them twice."""

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        self.stem = Stem(4, kernel=3, pool=False)
        self.twice = CQB(4, 4, 3, bits=bits)
        self.deep = CQB(4, 4, 3, 2, bits=1, activation="binary", weight="binary", groups=4)
        self.act = ActivationChain(4, bits=3, kind="lsq", nonlinearity="relu")
        self.conv = QuantConv2d(4, 6, 1, bits=4, kind="lsq", top=7)
        self.fc = nn.Linear(6, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.deep(self.twice(self.twice(self.stem(image))))
        out: Tensor = self.fc(self.conv(self.act(x)).mean(dim=(2, 3)))
        return out


def test_any_network_of_our_layers_is_counted() -> None:
    """Row by row, by hand, on 16 pixels."""
    network = _Own()
    twice = LayerStats("twice.conv", "conv", 144, 2, 2, 144 * 64, (4, 8, 8))
    assert layer_stats(network, 16) == [
        LayerStats("stem.conv", "conv", 108, 8, 8, 108 * 64, (4, 8, 8)),
        twice,
        twice,
        LayerStats("deep.conv", "depthwise", 36, 1, 1, 36 * 16, (4, 4, 4)),
        LayerStats("conv", "conv", 24, 4, 3, 24 * 16, (6, 4, 4)),
        LayerStats("fc", "linear", 30, 32, 32, 30, (5,)),
    ]
    stem, cqb, deep = 108 + 2 * 4, 144 + 2 * 4 + 3 * 4 + 1, 36 + 2 * 4 + 3 * 4 + 1
    assert parameters(network) == stem + cqb + deep + (24 + 2 * 6) + (30 + 5)


@pytest.mark.parametrize("bits", [2, 32])
def test_parameters_of_a_single_layer(bits: int) -> None:
    """Also where the quantizer is the network's own child: its clip is not counted."""
    assert parameters(QuantConv2d(4, 6, 3, bits=bits)) == 4 * 6 * 9 + 2 * 6
    assert parameters(ActivationChain(4, bits=bits)) == 3 * 4
