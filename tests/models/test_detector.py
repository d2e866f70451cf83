"""Detectors: topology, size, inputs, and the exactness of evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.models import ARCHITECTURES, Detector, DetectorConfig, build_detector, quantized_layers
from qmdd.models.checkpoint import freeze
from qmdd.models.conv import EXACT_LIMIT
from qmdd.models.resnet import STEM_BITS, BasicBlock, Bottleneck

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
def test_parameters_and_quantized_layers(arch: str, layers: int, millions: float) -> None:
    """Counted from the layout (DESIGN 2: [2,2,2,3], 64-512, 7x7 stem, 1x1 downsampling).

    Quantising adds only the quantizers' own scalars. On the meta device: shapes without memory.
    """
    convs, downs = _shapes(arch)
    with torch.device("meta"):
        twin = Detector(DetectorConfig(arch, 32))
        quantised = Detector(DetectorConfig(arch, 2))
    assert len(convs) == layers
    assert _count(twin) == _parameters(arch)
    assert round(_count(twin) / 1e6, 1) == millions
    extra = PER_ACTIVATION * layers + len(convs) + len(downs)  # clip_val per quantised weight
    assert _count(quantised) - _count(twin) == extra
    assert len(quantized_layers(quantised)) == layers
    assert quantized_layers(twin) == []


def test_quantized_layers_come_in_the_order_of_execution() -> None:
    """Names as in the state dict; each block's first convolution before its second."""
    with torch.device("meta"):
        names = [name for name, _ in quantized_layers(Detector(DetectorConfig()))]
    assert names[:4] == [
        f"stages.0.{block}.{conv}" for block in (0, 1) for conv in ("conv1", "conv2")
    ]
    assert names[-1] == "stages.3.2.conv2"


@pytest.fixture(scope="module")
def full(settle: Callable[[Detector], Detector]) -> Detector:
    """ResNet-23 at 2 bits and full width; read only."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return settle(build_detector("resnet23", 2))


def _images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def _codes_of(detector: Detector, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Codes at every quantizer, by layer, and the logits."""
    seen: dict[str, Tensor] = {}

    def record(name: str, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def codes(x: Tensor) -> Tensor:
            seen[name] = original(x)
            return seen[name]

        return codes

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for name, layer in quantized_layers(detector):
            patch.setattr(layer.act, "codes", record(name, layer.act.codes))
        logits = detector(images)
    assert len(seen) == len(quantized_layers(detector))
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
        # The closing mean and fully connected layer sum floats: the last bits may differ.
        assert float((logit - logits[index]).abs()) <= 1e-5
    # The test sees something: all four codes occur at nearly every layer.
    varied = [name for name, codes in together.items() if np.unique(codes.numpy()).size == 4]
    assert len(varied) == 17  # the first sees what a ReLU has passed: no code 0


def test_codes_do_not_depend_on_the_memory_layout(full: Detector) -> None:
    """Training leaves weights and images channels last; exact sums do not mind."""
    images = _images(2, 48, 48)
    plain, _ = _codes_of(full, images)
    other = copy.deepcopy(full).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last, _ = _codes_of(other, images.contiguous(memory_format=torch.channels_last))
    for name, codes in plain.items():
        assert torch.equal(codes, last[name]), name


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 32])
def test_every_architecture_runs_at_every_width(
    tiny_detector: DetectorFactory, arch: str, bits: int
) -> None:
    """Finite logits that depend on the image, in evaluation; freezing changes no bit of them."""
    detector = tiny_detector(arch, bits)
    images = _images(3, 64, 64)
    with torch.no_grad():
        before = detector(images)
        assert bool(torch.isfinite(before).all())
        assert before.unique().numel() == 3
        if bits != 32:
            assert torch.equal(freeze(detector)(images), before)


@pytest.mark.parametrize("arch", ["resnet23", "resnet50"])
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_block_adds_its_residual(tiny_detector: DetectorFactory, arch: str, stage: int) -> None:
    """Main path plus input; where the shape changes, plus ``BN(conv1x1)`` of the first codes.

    The residual is recomputed in float64 from values (``code * step``) and weights
    (``code * scale``): 1e-5 of the largest.
    """
    detector = tiny_detector(arch)
    images = _images(2, 64, 64)
    with torch.no_grad():
        x = detector.stages[:stage](detector.stem(images))
        block = next(detector.stages[stage].children())
        assert isinstance(block, BasicBlock | Bottleneck)
        have = block(x)
        first, *others = block.path()
        codes = first.activate(x)
        main = first.combine(x, codes)
        for layer in others:
            main = layer(main)
        want = x.double()
        down = copy.deepcopy(block.downsample)
        assert (down is None) == (x.shape == main.shape)
        if down is not None:
            frozen = down.frozen()
            values = codes.double() * first.step.double()
            weight = frozen.codes.double() * frozen.scale.double().reshape(-1, 1, 1, 1)
            want = down.bn.double()(nn.functional.conv2d(values, weight, stride=down.stride))
    residual = have.double() - main.double()
    assert float((residual - want).abs().max()) <= 1e-5 * float(have.abs().max())


@pytest.mark.parametrize("activation", ["minmax", "lsq", "n2uq"])
@pytest.mark.parametrize("weight", ["minmax", "lsq", "n2uq"])
@pytest.mark.parametrize("options", [{"slr": True}, {"slr": False}, {"cqb": False}])
def test_every_quantizer_trains_and_evaluates(
    tiny_detector: DetectorFactory, activation: str, weight: str, options: dict[str, bool]
) -> None:
    """Every trainable parameter gets a finite gradient, and one that is not zero.

    But for PReLU slopes: at the start LSQ maps all negative inputs to code 0, where no gradient
    is, and the first PReLU of all sees what a ReLU has passed.
    """
    detector = tiny_detector(bits=3, activation=activation, weight=weight, **options)
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
    assert zero == []


def test_the_twin_is_the_same_network_without_quantizers(tiny_detector: DetectorFactory) -> None:
    """Every parameter and buffer of the twin has its namesake; the rest belongs to quantizers."""
    twin = tiny_detector(bits=32).state_dict()
    quantised = tiny_detector(bits=2).state_dict()
    shared = {key: value.shape for key, value in quantised.items() if ".quantizer." not in key}
    assert {key: value.shape for key, value in twin.items()} == shared


def test_the_stem_is_exact(full: Detector) -> None:
    """DESIGN 3.4: ``255 * sum|w|`` stays below 2^24 in every channel; residuals are integers."""
    frozen = full.stem.conv.frozen()
    largest = int(frozen.codes.long().abs().sum(dim=(1, 2, 3)).max()) * 255
    assert int(frozen.codes.abs().max()) == 2 ** (STEM_BITS - 1) - 1
    assert largest < EXACT_LIMIT
    residual = full.stem.residual(_images(1, 33, 40))
    assert residual.shape == (1, 3, 32, 40)
    assert torch.equal(residual, residual.round())


def test_the_stem_sees_no_uniform_change_of_brightness(full: Detector) -> None:
    """NPR cancels what all pixels share: the logit does not move, to the bit."""
    images = (_images(1, 48, 48).long() // 2).to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(full(images), full(images + 100))


@pytest.mark.parametrize("std", [(0.229, 0.224, 0.225), (0.5, 0.25, 1.0)])
def test_normalisation_is_in_the_stems_weights(std: tuple[float, float, float]) -> None:
    """``(p/255 - mean)/std`` then ``* 2/3``: the twin's stem equals the plain formula.

    The weights are kaiming's over std; the formula is computed in float64. 1e-5 of the largest.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = build_detector("resnet23", 32, std=std)
        torch.manual_seed(0)
        plain = torch.empty(64, 3, 7, 7)
        nn.init.kaiming_normal_(plain, mode="fan_out", nonlinearity="relu")
    images = _images(1, 32, 32).double()
    spread = torch.tensor(std, dtype=torch.float64).reshape(1, 3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).reshape(1, 3, 1, 1)
    normal = (images / 255 - mean) / spread
    corner = normal[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
    residual = (normal - corner) * 2 / 3
    want = nn.functional.conv2d(residual, plain.double(), stride=2, padding=3)
    stem = detector.stem
    have = nn.functional.conv2d(
        stem.residual(images) * stem.gain, stem.conv.latent(), stride=2, padding=3
    )
    assert float((have - want).detach().abs().max()) <= 1e-5 * float(want.abs().max())
