"""N2UQ's published networks: imported, they compute on the published codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qmdd.models import CheckpointError, Codes, Detector, build_detector, quantised_chains
from qmdd.models.checkpoint import checkpoint_bytes, load_checkpoint, load_weights
from qmdd.models.foreign import Imported, import_checkpoint
from qmdd.models.foreign.n2uq import mean_shift

Change = Callable[[dict[str, Tensor]], Any]

NETWORKS = pytest.mark.parametrize(
    ("arch", "bits"), [("resnet18", 2), ("resnet18", 3), ("resnet18", 4), ("resnet50", 2)]
)


def _imported(net: nn.Module, path: Path, save: Any, **options: Any) -> Imported:
    return import_checkpoint(save(net, path / "model_best.pth.tar"), **options)


def _passed(codes: Codes) -> Tensor:
    """Thresholds passed, as the published quantizer counts them, whichever end ours counts from."""
    return (codes.zero - codes.codes if float(codes.zero) else codes.codes).to(torch.int64)


class _Seen:
    """What each of our layers read and gave, by name."""

    def __init__(self, detector: Detector, images: Tensor) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.codes: dict[str, Codes] = {}
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            for name, chain in quantised_chains(detector):
                patch.setattr(chain, "codes", self._record(name, chain.codes))
            self.logits = detector(images)

    def _record(self, name: str, original: Callable[[Tensor], Codes]) -> Callable[..., Codes]:
        def codes(x: Tensor) -> Codes:
            self.inputs[name] = x
            self.codes[name] = original(x)
            return self.codes[name]

        return codes


@NETWORKS
def test_each_layer_has_the_published_codes(
    n2uq_net: Any, save_n2uq: Any, some_images: Tensor, tmp_path: Path, arch: str, bits: int
) -> None:
    """Chain and quantizer in float64, on what ours read: equal but within rounding of a threshold.

    The chain is three float32 roundings of numbers of about one: 1e-6 around a threshold.
    """
    net = n2uq_net(arch=arch, bits=bits).double()
    detector = _imported(net, tmp_path, save_n2uq).detector
    seen = _Seen(detector, some_images)
    reference = net.quantizers()
    assert list(reference) == [name for name, _ in quantised_chains(detector)]
    close = total = 0
    for name, quantizer in reference.items():
        x = seen.inputs[name].double()
        *_, layer = name.split(".")
        if layer != "downsample":
            block = net.get_submodule(_theirs(name).rpartition(".")[0])
            number = layer.removeprefix("conv")
            for part in (f"bias{number}1", f"prelu{number}", f"bias{number}2"):
                x = block.get_submodule(part)(x)
        margins = quantizer.margins(x)
        want = (margins > 0).sum(-1)
        have = _passed(seen.codes[name])
        tie = margins.abs().amin(-1) < 1e-6 * (1 + x.abs())
        assert torch.equal(have[~tie], want[~tie]), name
        assert want.unique().numel() > 2 ** (bits - 1), name  # the test sees something
        close += int(tie.sum())
        total += tie.numel()
    assert close < 1e-4 * total  # hardly anything was left out


def _theirs(layer: str) -> str:
    _, stage, position, name = layer.split(".")
    theirs = "downsample.0" if name == "downsample" else name.replace("conv", "quan")
    return f"layer{int(stage) + 1}.{position}.{theirs}"


@NETWORKS
def test_each_convolution_is_the_published_one(
    n2uq_net: Any, save_n2uq: Any, some_images: Tensor, tmp_path: Path, arch: str, bits: int
) -> None:
    """Weight codes are the published levels; sums and batch-norm in float64 on our codes' values.

    Weights are divided in float32: levels within 1e-5 of a tie are left out, and ours is taken. The
    result is rounded twice in float32: 1e-6 of the largest.
    """
    net = n2uq_net(arch=arch, bits=bits).double()
    detector = _imported(net, tmp_path, save_n2uq).detector
    detector.requires_grad_(False)
    seen = _Seen(detector, some_images)
    top = 2**bits - 1
    close = total = 0
    for name, codes in seen.codes.items():
        layer = detector.get_submodule(name)
        theirs = _theirs(name).replace("quan", "conv").replace("downsample.0", "downsample.1")
        norm = net.get_submodule(theirs.replace("conv", "bn").replace("sample.1", "sample.2"))
        conv = net.get_submodule(theirs)
        level, factor = conv.levels()
        tie = (level - level.floor() - 0.5).abs() < 1e-5
        ours = layer.conv.frozen()
        index = torch.where(tie, (ours.codes + top) / 2, level.round())
        assert float((index - level).abs().max()) < 0.50001, name
        assert torch.equal(ours.codes.long(), (2 * index - top).long()), name
        close += int(tie.sum())
        total += tie.numel()
        weight = factor * conv.clip_val * (index / top - 0.5)
        scale = ours.scale.double().reshape(-1, 1, 1, 1)
        torch.testing.assert_close(ours.codes * scale, weight, rtol=1e-6, atol=0)
        values = _passed(codes) * (2 / top) * net.get_submodule(_theirs(name)).scale2
        want = norm(F.conv2d(values, weight, None, conv.stride, weight.shape[2] // 2))
        have = layer.conv(codes).double()
        assert float((have - want).abs().max()) < 1e-6 * float(want.abs().max()), name
    assert close < 1e-4 * total


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codes_and_logits_are_those_of_the_published_forward(
    n2uq_net: Any,
    save_n2uq: Any,
    with_our_stem: Any,
    some_images: Tensor,
    tmp_path: Path,
    bits: int,
) -> None:
    """From the pixels on, with the stem's 8-bit weights: every code, and logits to 1e-6.

    The published forward in float64. No input of these images lies so close to a threshold that
    float32 and float64 differ; both sides are exact enough for this to be the same everywhere.
    """
    net = n2uq_net(bits=bits, classes=1)
    imported = _imported(net, tmp_path, save_n2uq)
    seen = _Seen(imported.detector, some_images)
    net = with_our_stem(net, imported.detector)
    with torch.no_grad():
        logits = net(some_images).squeeze(1)
    for name, quantizer in net.quantizers().items():
        assert torch.equal(_passed(seen.codes[name]), quantizer.count), name
    assert float((logits - seen.logits.double()).abs().max()) < 1e-6
    assert logits.unique().numel() == len(some_images)


def test_the_stem_moves_by_no_more_than_its_rounding(
    n2uq_net: Any, save_n2uq: Any, some_images: Tensor, tmp_path: Path
) -> None:
    """Against the published float stem with the exact mean, batch-norm's mean moved along.

    Inside the image, half a step of the 8-bit weights for each unit of the pixels; where the kernel
    hangs over the edge, also the part of the mean's rounding that is not moved.
    """
    net = n2uq_net()
    detector = _imported(net, tmp_path, save_n2uq).detector
    stem: Any = detector.stem
    shift = (mean_shift(net.conv1.weight)).double().reshape(1, -1, 1, 1)
    torch.testing.assert_close(
        net.bn1.running_mean - shift.flatten().float(), stem.conv.bn.running_mean
    )
    net = net.double()
    frozen = stem.conv.frozen()
    x = stem.residual(some_images).double()
    step = frozen.scale.double().reshape(1, -1, 1, 1)
    with torch.no_grad():
        ours = F.conv2d(x, frozen.codes.double(), None, 2, 3) * step / 255
        exact = F.conv2d(x / 255, stem.conv.weight.double(), None, 2, 3)
        published = net.stem(some_images)
        reach = F.conv2d(x.abs(), torch.ones(1, 3, 7, 7, dtype=torch.float64), None, 2, 3) / 255
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    # The mean's rounding alone: nothing is left of it inside (float32 weights: 1e-6).
    torch.testing.assert_close(exact[inside] + shift, published[inside], rtol=0, atol=2e-6)
    assert float((exact + shift - published).abs().max()) < 0.05
    difference = (ours + shift - published).abs()
    assert bool((difference[inside] <= (0.5 * step * reach + 1e-5)[inside]).all())
    assert float(difference[inside].max()) > 1e-4  # the test sees something


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_every_tensor_is_accounted_for(
    n2uq_net: Any, save_n2uq: Any, tmp_path: Path, arch: str
) -> None:
    """Each of the file's and each of ours once; constants and classes dropped, with the reason."""
    net = n2uq_net(arch=arch, stem=4)
    imported = _imported(net, tmp_path, save_n2uq)
    config = imported.detector.config
    assert (imported.format, config.arch, config.bits) == ("n2uq", f"n2uq_{arch}", 2)
    assert (config.cqb, config.slr, config.representation) == (False, False, "rgb")
    keys = list(net.state_dict())
    assert [row.source for row in imported.rows if row.source] == keys
    ours = sorted(str(row.ours) for row in imported.rows if row.ours)
    assert ours == sorted(imported.detector.state_dict())
    dropped = {row.source: row.note for row in imported.rows if row.status == "dropped"}
    constants = [
        k for k in keys if k.rpartition(".")[2] in ("two", "one", "zero", "minusone", "eps")
    ]
    assert list(dropped) == [*constants, "fc.weight", "fc.bias"]
    assert dropped["layer1.0.quan1.eps"] == "the published formula's 0.001"
    assert dropped["fc.weight"] == "1000 classes; a detector's head is new"
    new = {row.ours: row.note for row in imported.rows if row.status == "initialised"}
    assert set(new) == {"stem.gain", "head.fc.weight", "head.fc.bias"}
    assert new["head.fc.bias"] == "new (seed 0): to be trained"
    assert imported.counts["mapped"] == len(keys) - len(dropped)
    assert imported.notes[-1] == "left out beside the weights: epoch, best_top1_acc, optimizer"
    assert any("the head is new" in note for note in imported.notes)


def test_a_head_of_one_class_is_taken_over(n2uq_net: Any, save_n2uq: Any, tmp_path: Path) -> None:
    """Somebody's detector, trained with the published code."""
    net = n2uq_net(classes=1)
    imported = _imported(net, tmp_path, save_n2uq)
    assert torch.equal(imported.detector.head.fc.weight, net.fc.weight)
    assert torch.equal(imported.detector.head.fc.bias, net.fc.bias)
    assert not any("head" in note for note in imported.notes)


def test_importing_twice_gives_the_same_bytes(
    n2uq_net: Any, save_n2uq: Any, tmp_path: Path
) -> None:
    """The new head among them; torch's generator is left alone."""
    net = n2uq_net()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = _imported(net, tmp_path, save_n2uq).checkpoint_bytes()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert _imported(net, tmp_path, save_n2uq).checkpoint_bytes() == first


def test_it_comes_back_and_trains_on(
    n2uq_net: Any, save_n2uq: Any, some_images: Tensor, tmp_path: Path
) -> None:
    """The latent checkpoint; a detector of its configuration starts with its quantizers too."""
    source = _imported(n2uq_net(), tmp_path, save_n2uq).detector
    (tmp_path / "a.safetensors").write_bytes(checkpoint_bytes(source))
    back = load_checkpoint(tmp_path / "a.safetensors")
    with torch.no_grad():
        assert torch.equal(back(some_images), source(some_images))
    target = build_detector(
        "n2uq_resnet18", 2, cqb=False, slr=False, representation="rgb", width=0.125
    )
    load_weights(target, back)
    for key, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], tensor), key


def test_unusual_values_keep_the_published_function(
    n2uq_net: Any,
    save_n2uq: Any,
    with_our_stem: Any,
    some_images: Tensor,
    tmp_path: Path,
) -> None:
    """Negative ``scale1`` and ``scale2``, held gaps, negative slopes, dead channels: all noted.

    Against the published forward in float64, as above. Dead channels are zeros there; in ours each
    weight counts as 1e-8 of a weight, hence 1e-5 for the logits.
    """
    net = n2uq_net(classes=1, seed=3)
    with torch.no_grad():
        net.layer1[0].quan2.scale1.neg_()
        net.layer2[0].downsample[0].scale1.neg_()
        net.layer3[1].quan1.scale1.neg_()
        net.layer4[0].quan2.scale2.neg_()
        net.layer1[1].quan1.a[1] = -0.5
        net.layer1[1].quan2.a[0] = 0.0
        net.layer2[1].prelu1.weight[2:4] = -0.3
        net.layer2[1].prelu3.weight[1] = -0.2
        net.layer3[0].conv1.weight[5] = 0
    imported = _imported(net, tmp_path, save_n2uq)
    seen = _Seen(imported.detector, some_images)
    net = with_our_stem(net, imported.detector)
    with torch.no_grad():
        logits = net(some_images).squeeze(1)
    falling = []
    for name, quantizer in net.quantizers().items():
        assert torch.equal(_passed(seen.codes[name]), quantizer.count), name
        if float(seen.codes[name].zero):
            falling.append(name)
    assert falling == ["stages.0.0.conv2", "stages.1.0.downsample", "stages.2.1.conv1"]
    assert float((logits - seen.logits.double()).abs().max()) < 1e-5
    notes = "\n".join(imported.notes)
    for said in (
        "2 gaps below 0.001 are held there, as published",
        "3 quantizers have a negative input scale (layer1.0.quan2, layer2.0.downsample.0, "
        "layer3.1.quan1)",
        "1 output channels hold nothing but zeros",
        "(layer3.0.conv1.weight)",
        "3 PReLU slopes are negative",
        "(layer2.1.prelu1.weight, layer2.1.prelu3.weight)",
    ):
        assert said in notes


def test_full_precision_downsampling_is_refused_or_quantised(
    n2uq_net: Any, save_n2uq: Any, some_images: Tensor, tmp_path: Path
) -> None:
    """Refused with the way out; if asked, its weights are quantised, its thresholds conv1's."""
    net = n2uq_net(quantised_down=False)
    with pytest.raises(CheckpointError, match="3 downsampling convolutions are in full precision"):
        _imported(net, tmp_path, save_n2uq)
    imported = _imported(net, tmp_path, save_n2uq, quantize_downsample=True)
    assert any("3 downsampling convolutions were in full precision" in n for n in imported.notes)
    state = imported.detector.state_dict()
    for stage in (1, 2, 3):
        ours, theirs = f"stages.{stage}.0", f"layer{stage + 1}.0"
        weight = net.state_dict()[f"{theirs}.downsample.0.weight"]
        assert torch.equal(state[f"{ours}.downsample.conv.weight"], weight)
        for name in ("a", "start", "scale1", "scale2"):
            copied = state[f"{ours}.downsample.act.quantizer.{name}"]
            assert torch.equal(copied, state[f"{ours}.conv1.act.quantizer.{name}"])
            assert torch.equal(copied.flatten(), net.state_dict()[f"{theirs}.quan1.{name}"])
    new = {row.ours: row.note for row in imported.rows if row.status == "initialised"}
    assert len(new) == 3 + 3 * 5
    assert new["stages.1.0.downsample.act.quantizer.a"].startswith("as the block's first quant")
    assert new["stages.1.0.downsample.conv.quantizer.clip_val"].startswith("N2UQ's initial value")
    with torch.no_grad():
        assert bool(imported.detector(some_images).isfinite().all())


def _put(key: str, tensor: Tensor) -> Change:
    return lambda state: state.update({key: tensor})


def _drop(*keys: str) -> Change:
    return lambda state: [state.pop(key) for key in keys]


def _drop_prefix(prefix: str) -> Change:
    return lambda state: [state.pop(key) for key in list(state) if key.startswith(prefix)]


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_drop("layer2.0.quan1.start"), "1 tensor missing (layer2.0.quan1.start)"),
        (_drop("layer1.0.quan1.a"), "(missing: fc1.weight) nor one of N2UQ's networks (missing: l"),
        (_drop_prefix("layer4.1."), "2, 2, 2, 1 basic blocks; N2UQ's published networks have othe"),
        (_drop_prefix("layer4."), "2, 2, 2 basic blocks; N2UQ's published networks have others"),
        (_put("layer1.0.quan1.a", torch.ones(7)), "have 3, 7 thresholds; one width for all"),
        (_put("layer1.0.quan1.eps", 0.01 * ONE), "layer1.0.quan1.eps is [0.0099"),
        (_put("layer1.0.conv1.zero", ONE), "layer1.0.conv1.zero is [1.0], and [0.0] in the pub"),
        (_put("layer1.0.conv1.clip_val", -ONE), "clip_val is -1; weights cannot be clipped below"),
        (_put("layer1.0.quan2.scale1", 0 * ONE), "layer1.0.quan2.scale1 is 0: its quantizer give"),
        (_put("layer1.0.quan2.scale1", torch.ones(2)), "scale1 is [2], expected [1]"),
        (_put("layer1.0.bias11.bias", torch.ones(8)), "is [8], expected [1, 8, 1, 1]"),
        (_put("layer1.0.quan3.start", ONE), "1 tensor that this format does not know (layer1.0.q"),
        (_put("layer1.0.quan1.three", ONE), "1 tensor that this format does not know (layer1.0.q"),
        (
            _put("layer4.1.bn2.weight", torch.full((64,), 3e38)),
            "some value is too large for float32",
        ),
    ],
)
def test_what_is_not_a_published_network_is_refused(
    n2uq_net: Any, save_n2uq: Any, tmp_path: Path, change: Change, says: str
) -> None:
    path = save_n2uq(n2uq_net(), tmp_path / "a.pth.tar")
    saved = torch.load(path, weights_only=True)  # noqa: TID251 - a file of this test's own
    state = {key.removeprefix("module."): value for key, value in saved["state_dict"].items()}
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


def test_the_width_is_checked_where_it_is_asked_for(
    n2uq_net: Any, save_n2uq: Any, tmp_path: Path
) -> None:
    net = n2uq_net(bits=3)
    assert _imported(net, tmp_path, save_n2uq, bits=3).detector.config.bits == 3
    with pytest.raises(CheckpointError, match="have 7 thresholds: 3 bits, not 2"):
        _imported(net, tmp_path, save_n2uq, bits=2)
