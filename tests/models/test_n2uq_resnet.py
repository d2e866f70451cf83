"""N2UQ's published ResNets: layout, size, what a block computes, training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.models import CQB, Detector, build_detector, quantised_chains
from qmdd.models.n2uq_resnet import LAYOUTS, N2uqBasicBlock, N2uqBottleneck

DetectorFactory = Callable[..., Detector]

DEPTHS = {
    "n2uq_resnet18": (2, 2, 2, 2),
    "n2uq_resnet34": (3, 4, 6, 3),
    "n2uq_resnet50": (3, 4, 6, 3),
}
#: Name, channels in, out, side of the kernel, stride.
Layer = tuple[str, int, int, int, int]


def _images(count: int = 2, side: int = 64) -> Tensor:
    rng = np.random.default_rng(side)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def _layers(arch: str) -> list[Layer]:
    """Every quantised convolution, in the order in which they run."""
    deep = arch == "n2uq_resnet50"
    found: list[Layer] = []
    channels = 64
    for stage, depth in enumerate(DEPTHS[arch]):
        planes = 64 * 2**stage
        for block in range(depth):
            name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            out = planes * (4 if deep else 1)
            if deep:
                found.append((f"{name}.conv1", channels, planes, 1, 1))
                found.append((f"{name}.conv2", planes, planes, 3, stride))
                found.append((f"{name}.conv3", planes, out, 1, 1))
            else:
                found.append((f"{name}.conv1", channels, planes, 3, stride))
                found.append((f"{name}.conv2", planes, planes, 3, 1))
            if stride > 1 or channels != out:
                found.append((f"{name}.downsample", channels, out, 1, stride))
            channels = out
    return found


@pytest.mark.parametrize("arch", list(LAYOUTS))
def test_the_layout_is_the_published_one(arch: str) -> None:
    """Each convolution has a quantizer of its own, the downsampling ones without a chain."""
    with torch.device("meta"):
        detector = build_detector(arch, 2)
    layers = _layers(arch)
    assert len(layers) == {"n2uq_resnet18": 19, "n2uq_resnet34": 35, "n2uq_resnet50": 52}[arch]
    assert [name for name, _ in quantised_chains(detector)] == [name for name, *_ in layers]
    for name, c_in, c_out, kernel, stride in layers:
        layer = detector.get_submodule(name)
        assert isinstance(layer, CQB)
        conv = layer.conv
        assert (conv.in_channels, conv.out_channels, conv.kernel) == (c_in, c_out, kernel)
        assert (conv.stride, conv.padding) == (stride, kernel // 2)
        straight = name.endswith(".downsample")
        assert layer.act.nonlinearity == ("none" if straight else "rprelu")
        assert (layer.alpha is None) == straight
    assert detector.stem.conv.kernel == 7  # type: ignore[union-attr]
    assert detector.head.prelu is None


@pytest.mark.parametrize(
    ("arch", "millions"),
    [("n2uq_resnet18", 11.2), ("n2uq_resnet34", 21.3), ("n2uq_resnet50", 23.6)],
)
def test_parameters_counted_by_hand(arch: str, millions: float) -> None:
    """Stem, batch-norms, shifts and slopes before each convolution and behind each block, head."""
    layers = _layers(arch)
    blocks = [name for name, *_ in layers if name.endswith(".conv1")]
    parameters = 64 * 147 + 2 * 64
    for name, c_in, c_out, kernel, _ in layers:
        parameters += c_in * c_out * kernel**2 + 2 * c_out
        parameters += 0 if name.endswith(".downsample") else 3 * c_in
    last = {name.rpartition(".")[0]: c_out for name, _, c_out, *_ in layers}
    assert len(last) == len(blocks)
    parameters += 3 * sum(last.values())
    features = 2048 if arch == "n2uq_resnet50" else 512
    parameters += features + 1
    with torch.device("meta"):
        twin = build_detector(arch, 32, cqb=False)
        quantised = build_detector(arch, 3, cqb=False, slr=False)
    assert sum(p.numel() for p in twin.parameters()) == parameters
    assert round(parameters / 1e6, 1) == millions
    # Quantising adds seven gaps, start and two scales for each quantizer, a clip for each weight.
    extra = sum(p.numel() for p in quantised.parameters()) - parameters
    assert extra == len(layers) * (7 + 3 + 1)


@pytest.mark.parametrize("arch", ["n2uq_resnet18", "n2uq_resnet50"])
@pytest.mark.parametrize("cqb", [True, False])
def test_a_block_is_closed_by_shift_prelu_shift(
    tiny_detector: DetectorFactory, arch: str, cqb: bool
) -> None:
    """Of main path plus residual: the input, or what the downsampling makes of it. To the bit."""
    detector = tiny_detector(arch, 2, width=0.125, cqb=cqb, slr=False, representation="rgb")
    detector.requires_grad_(False)
    rng = np.random.default_rng(5)
    kinds = []
    x = detector.stem(_images())
    for stage in detector.stages:
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            assert isinstance(block, N2uqBasicBlock | N2uqBottleneck)
            for parameter in block.closing.parameters():
                parameter.copy_(torch.from_numpy(rng.uniform(0.1, 0.4, tuple(parameter.shape))))
            out = x
            for layer in block.path():
                out = layer(out)
            kinds.append(block.downsample is not None)
            if block.downsample is not None:
                codes = block.downsample.act.codes(x)  # straight on the block's input
                out = out + block.downsample.conv(codes)
            else:
                out = out + x
            first, slope, second = (p.reshape(1, -1, 1, 1) for p in block.closing.parameters())
            out = out + first
            out = torch.where(out > 0, out, out * slope) + second
            assert torch.equal(block(x), out)
            x = out
    assert sum(kinds) == (4 if arch == "n2uq_resnet50" else 3)


def _untouched(detector: Detector) -> set[str]:
    """Parameters whose gradient is zero in a step of training; all are finite."""
    detector.train()(_images(4)).square().sum().backward()
    names = set()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        if not bool(parameter.grad.any()):
            names.add(name)
    return names


@pytest.mark.parametrize(("arch", "bits"), [(a, 2) for a in LAYOUTS] + [("n2uq_resnet18", 4)])
@pytest.mark.parametrize("options", [{}, {"cqb": False, "slr": False, "representation": "rgb"}])
def test_it_trains(
    tiny_detector: DetectorFactory, arch: str, bits: int, options: dict[str, bool]
) -> None:
    """Every parameter gets a gradient; the first PReLU's slopes see only what a ReLU has passed.

    From fresh weights no PReLU's do, as in the published network: N2UQ's thresholds start at 0, and
    below them there is no gradient. They get theirs once thresholds or shifts have moved.
    """
    torch.manual_seed(1)
    fresh = _untouched(build_detector(arch, bits, width=0.125, **options))
    assert all(name.endswith("prelu.weight") for name in fresh)
    # A layer this narrow may give code 0 alone for one set of weights, and so have no gradient.
    moved = set.intersection(
        *(
            _untouched(tiny_detector(arch, bits, seed=seed, width=0.125, **options))
            for seed in (0, 1)
        )
    )
    assert moved == {"stages.0.0.conv1.act.prelu.weight"}
