"""The published NPR detector's network: layout, size, what a block computes, training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from qmdd.models import Codes, Detector, QuantConv2d, build_detector, quantised_chains
from qmdd.models.npr_resnet import PostBottleneck

ARCH = "npr_resnet50"


def _images(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    rng = np.random.default_rng(height)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def _blocks(detector: Detector) -> list[PostBottleneck]:
    return [module for module in detector.modules() if isinstance(module, PostBottleneck)]


def untouched(detector: Detector) -> set[str]:
    """Parameters without a gradient in any of four steps of descent."""
    names = {name for name, _ in detector.named_parameters()}
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    for step in range(4):
        detector.zero_grad()
        logits = detector(_images(4, 64 + 2 * step, 64))
        F.binary_cross_entropy_with_logits(logits, labels).backward()
        for name, parameter in detector.named_parameters():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            if bool(parameter.grad.any()):
                names.discard(name)
            parameter.data.add_(parameter.grad, alpha=-0.1)
    return names


def _layers() -> list[tuple[str, int, int, int, int]]:
    """Name, channels in and out, side of the kernel, stride; the downsampling ones left out."""
    found, channels = [], 64
    for stage, (planes, depth) in enumerate(((64, 3), (128, 4))):
        for block in range(depth):
            name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            found.append((f"{name}.conv1", channels, planes, 1, 1))
            found.append((f"{name}.conv2", planes, planes, 3, stride))
            found.append((f"{name}.conv3", planes, 4 * planes, 1, 1))
            channels = 4 * planes
    return found


def test_the_layout_is_the_published_one() -> None:
    """Seven bottlenecks in two stages, a 3x3 stem with pooling, 512 features, no PReLU."""
    with torch.device("meta"):
        detector = build_detector(ARCH, 2)
    layers = _layers()
    assert [name for name, _ in quantised_chains(detector)] == [name for name, *_ in layers]
    for name, c_in, c_out, kernel, stride in layers:
        conv = detector.get_submodule(f"{name}.conv")
        assert isinstance(conv, QuantConv2d)
        assert (conv.in_channels, conv.out_channels, conv.kernel) == (c_in, c_out, kernel)
        assert (conv.stride, conv.padding) == (stride, kernel // 2)
    downs = [block.downsample for block in _blocks(detector)]
    shapes = [(d.in_channels, d.out_channels, d.stride) for d in downs if d is not None]
    assert shapes == [(64, 256, 1), (256, 512, 2)]
    assert [d is not None for d in downs] == [True, False, False, True, False, False, False]
    stem = detector.stem.conv
    assert (stem.out_channels, stem.kernel, stem.stride, stem.padding) == (64, 3, 2, 1)  # type: ignore[union-attr]
    assert detector.stem.pool
    assert detector.head.prelu is None
    assert detector.head.fc.in_features == 512
    assert not any("prelu" in name for name, _ in detector.named_parameters())


def test_parameters_are_the_published_networks() -> None:
    """Counted by hand; without CQB's alphas, 1.44 million, as the paper says of its detector."""
    parameters = 64 * 27 + 2 * 64 + 512 + 1
    for _, c_in, c_out, kernel, _ in _layers():
        parameters += c_in * c_out * kernel**2 + 2 * c_out
    for c_in, c_out in ((64, 256), (256, 512)):
        parameters += c_in * c_out + 2 * c_out
    with torch.device("meta"):
        plain = build_detector(ARCH, 32, cqb=False)
        connected = build_detector(ARCH, 32)
    assert sum(p.numel() for p in plain.parameters()) == parameters == 1_437_761
    assert sum(p.numel() for p in connected.parameters()) == parameters + 21


@pytest.mark.parametrize("bits", [2, 32])
def test_a_block_rectifies_the_sum(bits: int) -> None:
    """``relu(main path + residual)``, recomputed in float64 on the values that flow.

    1e-5 of the largest: float32 roundings of four layers.
    """
    torch.manual_seed(0)
    detector = build_detector(ARCH, bits, cqb=False, slr=False, width=0.125).eval()
    detector.requires_grad_(False)
    x = detector.stem(_images())
    assert float(x.min()) == 0.0
    for block in _blocks(detector)[:4]:
        assert block.conv1.act.before_quantizer(x) is x  # nothing stands before the first one
        y = x
        for layer in (block.conv1, block.conv2, block.conv3):
            y = _value(layer.conv, layer.act(y.float()))
        activated = block.conv1.act(x)
        down = block.downsample
        residual = x.double() if down is None else _value(down, activated)
        out = block(x)
        torch.testing.assert_close(
            out.double(), F.relu(y + residual), rtol=1e-5, atol=1e-5 * float(out.max())
        )
        assert 0.05 < float((out == 0).double().mean()) < 0.95
        x = out


def _value(conv: QuantConv2d, x: Tensor | Codes) -> Tensor:
    """Batch-norm of the convolution, float64."""
    bn = conv.bn
    if isinstance(x, Codes):
        frozen = conv.frozen()
        weight = frozen.codes.double() * frozen.scale.double().reshape(-1, 1, 1, 1)
        x = x.centred().double() * x.step.double()
    else:
        weight = conv.latent().double()
    y = F.conv2d(x.double(), weight, None, conv.stride, conv.padding)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    y = (y - bn.running_mean.reshape(1, -1, 1, 1)) / (
        bn.running_var.double().reshape(1, -1, 1, 1) + bn.eps
    ).sqrt()
    return y * bn.weight.reshape(1, -1, 1, 1) + bn.bias.reshape(1, -1, 1, 1)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("cqb", [True, False])
def test_it_trains(bits: int, cqb: bool) -> None:
    """From fresh weights: in a few steps every parameter gets a gradient, all of them finite."""
    torch.manual_seed(1)
    detector = build_detector(ARCH, bits, cqb=cqb, slr=cqb, width=0.125)
    assert not untouched(detector)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 64), (70, 38), (32, 32)])
def test_shapes(height: int, width: int) -> None:
    """Halved three times, rounded up."""
    detector = build_detector(ARCH, 2, width=0.0625).eval()
    images = _images(2, height, width)
    with torch.no_grad():
        features = detector.features(images)
    side = tuple(-(-(s // 2) // 4) for s in (height, width))
    assert features.shape == (2, 32, *side)
