"""Detectors: topology, size, inputs, and the exactness of evaluation."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.models import (
    ARCHITECTURES,
    Codes,
    Detector,
    build_detector,
    quantised_chains,
    quantised_convolutions,
)
from qmdd.models.checkpoint import freeze
from qmdd.models.resnet import LAYOUTS, BasicBlock, Bottleneck

DetectorFactory = Callable[..., Detector]
WIDTHS = (64, 128, 256, 512)
DEPTHS = {"resnet23": (2, 2, 2, 3), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
#: Learned scalars of a 2-bit SLR over N2UQ: tau, start, three gaps, two scales.
PER_ACTIVATION = 7


def _shapes(arch: str) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """Connected convolutions ``(in, out, kernel)`` and downsampling ones ``(in, out)``."""
    wide = 4 if arch == "resnet50" else 1
    convs, downs, channels = [], [], 64
    for stage, (planes, depth) in enumerate(zip(WIDTHS, DEPTHS[arch], strict=True)):
        for block in range(depth):
            out = planes * wide
            if wide == 4:
                convs += [(channels, planes, 1), (planes, planes, 3), (planes, out, 1)]
            else:
                convs += [(channels, planes, 3), (planes, planes, 3)]
            if block == 0 and (stage > 0 or channels != out):
                downs.append((channels, out))
            channels = out
    return convs, downs


def _parameters(arch: str) -> int:
    """Of the full-precision twin, counted by hand."""
    convs, downs = _shapes(arch)
    last = WIDTHS[-1] * (4 if arch == "resnet50" else 1)
    total = 64 * 3 * 49 + 2 * 64  # stem and its batch-norm
    for c_in, c_out, kernel in convs:
        total += c_in * c_out * kernel**2 + 2 * c_out  # convolution, batch-norm
        total += 3 * c_in + 1  # shift, PReLU, shift; alpha
    for c_in, c_out in downs:
        total += c_in * c_out + 2 * c_out
    return total + last + (last + 1)  # closing PReLU, fully connected layer


def _count(detector: nn.Module) -> int:
    return sum(p.numel() for p in detector.parameters())


@pytest.mark.parametrize(
    ("arch", "layers", "millions"),
    [("resnet23", 18, 15.9), ("resnet34", 32, 21.3), ("resnet50", 48, 23.6)],
)
def test_parameters_and_quantised_chains(arch: str, layers: int, millions: float) -> None:
    """Counted from the layout (DESIGN 2: [2,2,2,3], 64-512, 7x7 stem, 1x1 downsampling).

    Quantising adds only the quantizers' own scalars. On the meta device: shapes without memory.
    """
    convs, downs = _shapes(arch)
    with torch.device("meta"):
        twin = build_detector(arch, 32)
        quantised = build_detector(arch, 2)
    assert len(convs) == layers
    assert _count(twin) == _parameters(arch)
    assert round(_count(twin) / 1e6, 1) == millions
    extra = PER_ACTIVATION * layers + len(convs) + len(downs)  # clip_val per quantised weight
    assert _count(quantised) - _count(twin) == extra
    assert len(quantised_chains(quantised)) == layers
    assert quantised_chains(twin) == []


def test_quantised_chains_come_in_the_order_of_execution() -> None:
    """Names as in the state dict; each block's first convolution before its second."""
    with torch.device("meta"):
        names = [name for name, _ in quantised_chains(build_detector())]
    assert names[:4] == [
        f"stages.0.{block}.{conv}" for block in (0, 1) for conv in ("conv1", "conv2")
    ]
    assert names[-1] == "stages.3.2.conv2"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_chain_is_found_where_its_codes_are_made(
    tiny_detector: DetectorFactory, arch: str
) -> None:
    """In the order of :func:`quantised_chains`, each once; and a convolution for each of them."""
    detector = _tiny(tiny_detector, arch)
    codes, _ = _codes_of(detector, _images(1, 32, 32))
    names = [name for name, _ in quantised_chains(detector)]
    assert list(codes) == names
    stem, *convs = [name for name, _ in quantised_convolutions(detector)]
    assert stem == "stem.conv"
    # A downsampling convolution that reads another layer's codes is no part of a chain's layer.
    own = [name.removesuffix(".conv") for name in convs if name.endswith(".conv")]
    assert own == names


@pytest.fixture(scope="module")
def full(settle: Callable[[Detector], Detector]) -> Detector:
    """ResNet-23 at 2 bits and full width; read only."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return settle(build_detector("resnet23", 2))


def _tiny(make: DetectorFactory, arch: str, bits: int = 2, **options: object) -> Detector:
    """About 1/8 of its width: ``tiny_detector`` narrows the ResNets itself."""
    return make(arch, bits, width=1.0 if arch in LAYOUTS else 0.125, **options)


def _images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def _codes_of(detector: Detector, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Codes at every quantizer, by layer, and the logits."""
    seen: dict[str, Tensor] = {}

    def record(name: str, original: Callable[[Tensor], Codes]) -> Callable[[Tensor], Codes]:
        def codes(x: Tensor) -> Codes:
            found = original(x)
            assert name not in seen
            seen[name] = found.codes
            return found

        return codes

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for name, chain in quantised_chains(detector):
            patch.setattr(chain, "codes", record(name, chain.codes))
        logits = detector(images)
    assert len(seen) == len(quantised_chains(detector))
    return seen, logits


@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (33, 32), (36, 51), (64, 48), (65, 65), (70, 34), (69, 70)]
)
def test_any_size_gives_one_logit_an_image(full: Detector, height: int, width: int) -> None:
    """Odd sides lose their last row or column, to the bit; sides need not divide by anything."""
    images = _images(2, height, width)
    with torch.no_grad():
        logits = full(images)
        cropped = full(images[:, :, : height // 2 * 2, : width // 2 * 2])
        features = full.features(images)
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32
    assert bool(torch.isfinite(logits).all())
    assert torch.equal(logits, cropped)
    assert features.shape == (2, 512, -(-(height // 2) // 16), -(-(width // 2) // 16))


def test_bytes_and_floats_are_the_same_image(full: Detector) -> None:
    """uint8 and float32 holding 0..255 give equal logits."""
    images = _images(2, 48, 48)
    with torch.no_grad():
        assert torch.equal(full(images), full(images.float()))
        assert torch.equal(full(images), full(images.double()))


def test_codes_do_not_depend_on_the_batch(full: Detector) -> None:
    """Each image's codes at all 18 quantizers are the same alone, in a batch, and in another order.

    Everything before a quantizer is an exact sum or element-wise, so this is equality.
    """
    images = _images(4, 48, 64)
    together, logits = _codes_of(full, images)
    turned, _ = _codes_of(full, images.flip(0))
    for index in range(4):
        alone, logit = _codes_of(full, images[index : index + 1])
        for name, codes in alone.items():
            assert torch.equal(codes, together[name][index : index + 1]), name
            assert torch.equal(codes, turned[name][3 - index : 4 - index]), name
        # The closing mean and linear layer sum in float64 and round once: the logit is one too.
        assert torch.equal(logit[0], logits[index])
    # The test sees something: all four codes occur at nearly every layer.
    varied = [name for name, codes in together.items() if np.unique(codes.numpy()).size == 4]
    assert len(varied) == 17  # the first sees what a ReLU has passed: no code 0


def test_codes_do_not_depend_on_the_memory_layout(full: Detector) -> None:
    """Training leaves weights and images channels last; exact sums do not mind."""
    images = _images(2, 48, 48)
    plain, logits = _codes_of(full, images)
    other = copy.deepcopy(full).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last, same = _codes_of(other, images.contiguous(memory_format=torch.channels_last))
    for name, codes in plain.items():
        assert torch.equal(codes, last[name]), name
    assert torch.equal(same, logits)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("bits", "representation"),
    [*((bits, "npr") for bits in (1, 2, 3, 4, 8, 32)), (2, "rgb"), (32, "rgb")],
)
def test_every_architecture_runs_at_every_width(
    tiny_detector: DetectorFactory, arch: str, bits: int, representation: str
) -> None:
    """Finite logits that depend on the image, in evaluation; freezing changes no bit of them."""
    detector = _tiny(tiny_detector, arch, bits, representation=representation)
    images = _images(3, 64, 64)
    with torch.no_grad():
        before = detector(images)
        assert bool(torch.isfinite(before).all())
        assert before.unique().numel() == 3
        if bits != 32:
            assert torch.equal(freeze(detector)(images), before)


@pytest.mark.parametrize("arch", ["resnet23", "resnet50"])
@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize("activation", ["n2uq", "minmax"])
def test_a_block_adds_its_residual(
    tiny_detector: DetectorFactory, arch: str, stage: int, activation: str
) -> None:
    """Main path plus input; where the shape changes, plus ``BN(conv1x1)`` of the first codes.

    The residual is recomputed in float64 from values (``(code - zero) * step``) and weights
    (``code * scale``): 1e-5 of the largest.
    """
    detector = tiny_detector(arch, activation=activation)
    images = _images(2, 64, 64)
    with torch.no_grad():
        x = detector.stages[:stage](detector.stem(images))
        block = next(detector.stages[stage].children())
        assert isinstance(block, BasicBlock | Bottleneck)
        have = block(x)
        first, *others = block.path()
        activated = first.act(x)
        assert isinstance(activated, Codes)
        main = first.combine(x, activated)
        for layer in others:
            main = layer(main)
        want = x.double()
        down = copy.deepcopy(block.downsample)
        assert (down is None) == (x.shape == main.shape)
        if down is not None:
            frozen = down.frozen()
            values = activated.centred().double() * activated.step.double()
            weight = frozen.codes.double() * frozen.scale.double().reshape(-1, 1, 1, 1)
            want = down.bn.double()(nn.functional.conv2d(values, weight, stride=down.stride))
    residual = have.double() - main.double()
    assert float((residual - want).abs().max()) <= 1e-5 * float(have.abs().max())


QUANTIZERS = [
    *itertools.product([3], ["minmax", "lsq", "n2uq"], ["minmax", "lsq", "n2uq"]),
    *itertools.product([1], ["minmax", "lsq", "n2uq", "binary"], ["n2uq", "binary"]),
]


@pytest.mark.parametrize(("bits", "activation", "weight"), QUANTIZERS)
@pytest.mark.parametrize("options", [{"slr": True}, {"slr": False}, {"cqb": False}])
def test_every_quantizer_trains_and_evaluates(
    tiny_detector: DetectorFactory,
    bits: int,
    activation: str,
    weight: str,
    options: dict[str, bool],
) -> None:
    """Every trainable parameter gets a finite gradient, and one that is not zero.

    But for PReLU slopes: at the start LSQ maps all negative inputs to code 0, where no gradient
    is, and the first PReLU of all sees what a ReLU has passed. MinMax's one bit is told apart at
    half of its range, which hardly any input reaches: at the start nothing flows through it.
    """
    detector = tiny_detector(bits=bits, activation=activation, weight=weight, **options)
    images = _images(4, 64, 64)
    with torch.no_grad():
        assert bool(torch.isfinite(detector(images)).all())
    detector.train()
    detector(images).square().sum().backward()
    zero = []
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        if not bool(parameter.grad.any()) and not name.endswith(".act.prelu.weight"):
            zero.append(name)
    if (bits, activation) != (1, "minmax"):
        assert zero == []


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("bits", [1, 2])
def test_the_twin_is_the_same_network_without_quantizers(arch: str, bits: int) -> None:
    """Every parameter and buffer of the twin has its namesake; the rest belongs to quantizers."""
    with torch.device("meta"):
        twin = build_detector(arch, 32).state_dict()
        quantised = build_detector(arch, bits).state_dict()
    shared = {key: value.shape for key, value in quantised.items() if ".quantizer." not in key}
    assert {key: value.shape for key, value in twin.items()} == shared


def test_the_stem_sees_no_uniform_change_of_brightness(full: Detector) -> None:
    """NPR cancels what all pixels share: the logit does not move, to the bit."""
    images = (_images(1, 48, 48).long() // 2).to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(full(images), full(images + 100))
