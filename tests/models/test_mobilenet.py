"""MobileNetV2: layout, size, and what a block computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from qmdd.models import CQB, Codes, Detector, build_detector, quantised_chains
from qmdd.models.mobilenet import InvertedResidual, MobileNetV2Detector
from qmdd.models.stats import layer_stats

DetectorFactory = Callable[..., Detector]

#: Sandler et al., Table 2: expansion, channels, blocks, stride of the first block.
TABLE = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
#: Name, channels in, out, side of the kernel, stride, groups.
Layer = tuple[str, int, int, int, int, int]


def _layers() -> list[Layer]:
    """The connected convolutions of width 1, in order."""
    found: list[Layer] = []
    channels = 32
    for stage, (expansion, out, depth, first) in enumerate(TABLE):
        for block in range(depth):
            name, hidden = f"stages.{stage}.{block}", channels * expansion
            if expansion > 1:
                found.append((f"{name}.expand", channels, hidden, 1, 1, 1))
            stride = first if block == 0 else 1
            found.append((f"{name}.depthwise", hidden, hidden, 3, stride, hidden))
            found.append((f"{name}.project", hidden, out, 1, 1, 1))
            channels = out
    return [*found, ("stages.7", 320, 1280, 1, 1, 1)]


@pytest.fixture(scope="module")
def wide() -> Detector:
    """Width 1 at 2 bits, without memory."""
    with torch.device("meta"):
        return build_detector("mobilenetv2", 2)


@pytest.fixture(scope="module")
def small(tiny_detector: DetectorFactory) -> Detector:
    """1/8 wide, its activations MinMax, whose zero is a code of its own; read only."""
    return tiny_detector("mobilenetv2", 3, width=0.125, activation="minmax")


def _cqb(detector: Detector, name: str) -> CQB:
    layer = detector.get_submodule(name)
    assert isinstance(layer, CQB)
    return layer


def _images(count: int, height: int, width: int) -> Tensor:
    rng = np.random.default_rng(height)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def test_the_layout_is_the_published_one(wide: Detector) -> None:
    """51 connected convolutions: 16 blocks of three, the first of two, and the closing 1x1."""
    layers = _layers()
    assert len(layers) == 51
    assert [name for name, _ in quantised_chains(wide)] == [name for name, *_ in layers]
    for name, c_in, c_out, kernel, stride, groups in layers:
        conv = _cqb(wide, name).conv
        assert (conv.in_channels, conv.out_channels) == (c_in, c_out), name
        assert (conv.kernel, conv.padding) == (kernel, kernel // 2), name
        assert (conv.stride, conv.groups) == (stride, groups), name
        assert conv.weight_shape == (c_out, c_in // groups, kernel, kernel), name
    stem = wide.stem.conv
    assert (stem.in_channels, stem.out_channels, stem.kernel, stem.stride) == (3, 32, 3, 2)  # type: ignore[union-attr]


def test_the_three_convolutions_are_cqbs_three_kinds(wide: Detector) -> None:
    """Paper 3.4: the expansion goes up, the depthwise one stays equal, the projection goes down."""
    kinds = {"expand": "up", "depthwise": "equal", "project": "down"}
    seen = dict.fromkeys(kinds.values(), 0)
    for name, *_ in _layers():
        shortcut = _cqb(wide, name).shortcut
        assert shortcut is not None
        assert shortcut.kind == kinds.get(name.rpartition(".")[2], "up"), name
        seen[shortcut.kind] += 1
    assert seen == {"up": 17, "equal": 17, "down": 17}


def test_parameters_and_multiply_adds() -> None:
    """Counted by hand from the layout: 2,273,812 parameters, 0.39 G multiply-adds at 256 pixels."""
    parameters = 32 * 27 + 2 * 32  # stem and its batch-norm
    side = 128
    multiply_adds = 32 * 27 * side**2
    for _, c_in, c_out, kernel, stride, groups in _layers():
        side //= stride
        weights = c_out * c_in // groups * kernel**2
        parameters += weights + 2 * c_out + 3 * c_in + 1  # batch-norm; shift, PReLU, shift; alpha
        multiply_adds += weights * side**2
    parameters += 1280 + 1280 + 1  # closing PReLU, linear layer
    multiply_adds += 1280
    with torch.device("meta"):
        twin = build_detector("mobilenetv2", 32)
    assert sum(p.numel() for p in twin.parameters()) == parameters == 2_273_812
    assert sum(row.multiply_adds for row in layer_stats(twin, 256)) == multiply_adds
    assert round(multiply_adds / 1e9, 2) == 0.39


def test_quantising_adds_only_the_quantizers_own_parameters(wide: Detector) -> None:
    """N2UQ under SLR: tau, start, three gaps and two scales each; a clip for each weight."""
    with torch.device("meta"):
        twin = build_detector("mobilenetv2", 32)
    extra = sum(p.numel() for p in wide.parameters()) - sum(p.numel() for p in twin.parameters())
    assert extra == 51 * 7 + 51


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 64), (70, 38), (32, 32)])
def test_shapes(small: Detector, height: int, width: int) -> None:
    """Halved five times, rounded up; the last channels are a multiple of those before."""
    images = _images(2, height, width)
    with torch.no_grad():
        features = small.features(images)
        logits = small(images)
    side = tuple(-(-(s // 2) // 16) for s in (height, width))
    assert features.shape == (2, 160, *side)
    assert logits.shape == (2,)
    assert bool(torch.isfinite(logits).all())
    assert logits.unique().numel() == 2


def _blocks(detector: Detector) -> list[InvertedResidual]:
    return [block for block in detector.modules() if isinstance(block, InvertedResidual)]


def test_a_block_adds_its_input_only_where_the_shape_is_the_same(small: Detector) -> None:
    """Ten of seventeen at width 1, as published; to the bit, since it is one addition."""
    x = small.stem(_images(2, 64, 64))
    added = []
    with torch.no_grad():
        for block in _blocks(small):
            out = x
            for layer in block.path():
                out = layer(out)
            same = out.shape == x.shape
            stride = block.depthwise.conv.stride
            added.append(stride == 1 and block.project.conv.out_channels == x.shape[1])
            assert same == added[-1] == block.residual
            assert torch.equal(block(x), out + x if same else out)
            x = block(x)
    assert len(added) == 17


def test_ten_blocks_are_residual_at_width_one(wide: Detector) -> None:
    """All but the first of each stage."""
    residual = [block.residual for block in _blocks(wide)]
    assert residual == [block > 0 for _, _, depth, _ in TABLE for block in range(depth)]
    assert sum(residual) == 10


def test_a_depthwise_channel_sees_itself_alone(small: Detector) -> None:
    """One input channel changed changes that output channel, and no other, in both paths."""
    layer = _cqb(small, "stages.1.0.depthwise")
    channels = layer.conv.in_channels
    assert layer.conv.groups == channels
    assert layer.conv.frozen().codes.shape == (channels, 1, 3, 3)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(0, 1, (1, channels, 8, 8)).astype(np.float32))
    other = x.clone()
    other[:, 5] = -x[:, 5]
    with torch.no_grad():
        activated = layer.act(x)
        assert isinstance(activated, Codes)
        assert activated.codes[:, 5].unique().numel() > 1
        changed = (layer(x) != layer(other)).any(dim=(0, 2, 3))
    assert changed.tolist() == [channel == 5 for channel in range(channels)]


@pytest.mark.parametrize("width", [0.0625, 0.1, 0.125, 0.3, 0.5, 0.75, 1.4, 2.0])
def test_every_width_is_a_network(width: float) -> None:
    """CQB's repetition fits at all of them, the closing convolution's too."""
    with torch.device("meta"):
        detector = build_detector("mobilenetv2", 2, width=width)
    assert isinstance(detector, MobileNetV2Detector)
    config = detector.config
    last = _cqb(detector, "stages.7").conv
    assert last.in_channels == config.channels(320)
    assert last.out_channels % last.in_channels == 0
    assert abs(last.out_channels - config.channels(1280)) <= last.in_channels / 2
    assert detector.head.fc.in_features == last.out_channels
    assert {block.project.shortcut.kind for block in _blocks(detector)} <= {"down", "equal"}  # type: ignore[union-attr]


def test_without_cqb_there_is_no_shortcut() -> None:
    """``cqb=False``: the published residuals stay, alpha and shortcuts go."""
    with torch.device("meta"):
        detector = build_detector("mobilenetv2", 2, cqb=False)
    layers = [module for module in detector.modules() if isinstance(module, CQB)]
    assert len(layers) == 51
    assert all(layer.alpha is None and layer.shortcut is None for layer in layers)
    assert sum(block.residual for block in _blocks(detector)) == 10
