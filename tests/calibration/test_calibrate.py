"""A full-precision detector calibrated: ranges, odd layers, what is refused, what comes out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from qmdd.calibration.calibrate import Plan, calibrate, check_enough, quantise
from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.images import CalibrationImages
from qmdd.calibration.observe import observe
from qmdd.calibration.ranges import METHODS, Method
from qmdd.models import Detector, quantised_chains, quantised_convolutions
from qmdd.models.checkpoint import checkpoint_bytes, freeze
from qmdd.models.histogram import Histogram
from qmdd.models.quantizers import SlrActivation

Make = Callable[..., Detector]
Seen = Mapping[str, Histogram]


def _logits(detector: Detector, images: CalibrationImages) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([detector(batch.images) for batch in images.batches()]).numpy()


@pytest.mark.parametrize(
    ("method", "slr"), [*((name, False) for name in METHODS), ("minmax", True)]
)
def test_eight_bits_are_nearly_full_precision(
    method: str, slr: bool, source: Detector, images: CalibrationImages, observed: Seen
) -> None:
    """The logit moves by a small part of its own spread, and it does move."""
    plan = Plan(8, Method(method, 99.9), slr=slr)
    detector, layers = calibrate(source, observed, images, plan)
    before, after = _logits(source, images), _logits(detector, images)
    assert 0 < np.abs(after - before).max() < 0.5 * before.std()
    assert not detector.training
    assert (detector.config.bits, detector.config.slr) == (8, slr)
    assert len(layers) == 21  # 18 with an input of their own, 3 that downsample


def test_narrower_is_worse(source: Detector, images: CalibrationImages, observed: Seen) -> None:
    before = _logits(source, images)
    errors = []
    for bits in (8, 4, 2):
        detector, _ = calibrate(source, observed, images, Plan(bits, Method("mse")))
        errors.append(float(np.square(_logits(detector, images) - before).mean()))
    assert errors == sorted(errors)


def test_the_same_images_give_the_same_bytes(
    source: Detector, images: CalibrationImages, observed: Seen
) -> None:
    """Twice, whatever torch's random numbers are; and the source is left as it was."""
    kept = copy.deepcopy(source.state_dict())
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        detector, _ = calibrate(source, observed, images, Plan(4, slr=True))
        assert torch.equal(torch.get_rng_state(), before)
        found.append(checkpoint_bytes(freeze(detector)))
    assert found[0] == found[1]
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, kept[name]), name


def test_minmax_covers_what_was_seen(source: Detector, observed: Seen) -> None:
    """Every layer's range is that of its values, its codes reach both ends within a step."""
    detector, layers = quantise(source, observed, Plan(4, Method("minmax")))
    for name, chain in quantised_chains(detector):
        quantizer, seen = chain.quantizer, observed[name]
        assert (float(quantizer.low), float(quantizer.high)) == (seen.low, seen.high)
    for layer in layers:
        if layer.seen is not None:
            assert layer.low <= layer.seen[0] + layer.step * 0.51
            assert layer.high >= layer.seen[1] - layer.step * 0.51
            assert layer.clipped == 0


def test_slr_is_eq_10(source: Detector, observed: Seen) -> None:
    """``off = min(max|X|, eps) + tau``; the range's ends lie on the first and the last code."""
    detector, layers = quantise(source, observed, Plan(4, Method("minmax"), slr=True))
    rows = {layer.layer: layer for layer in layers}
    for name, chain in quantised_chains(detector):
        quantizer, seen, row = chain.quantizer, observed[name], rows[name]
        assert isinstance(quantizer, SlrActivation)
        largest = max(abs(seen.low), abs(seen.high))
        assert row.offset == pytest.approx(min(largest, 1.0) + row.tau, rel=1e-6)
        ends = torch.tensor([seen.low, seen.high])
        assert quantizer.count(ends).tolist() == [0, 15]
        assert row.low == pytest.approx(seen.low, abs=1e-3 * row.offset)
        assert row.high == pytest.approx(seen.high, rel=1e-3)


def test_widths_by_layer(source: Detector, images: CalibrationImages, observed: Seen) -> None:
    plan = Plan(4, layer_bits=(("stages.0.0.conv1", 8), ("stages.1.0.downsample", 2)))
    detector, layers = calibrate(source, observed, images, plan)
    found = {layer.layer: layer.bits for layer in layers}
    assert found.pop("stages.0.0.conv1") == 8
    assert found.pop("stages.1.0.downsample") == 2
    assert set(found.values()) == {4}
    for name, conv in quantised_convolutions(detector):
        want = plan.config(source.config).bits_of(name.removesuffix(".conv"))
        assert conv.bits == (8 if name.startswith("stem") else want)


def _dead(source: Detector) -> None:
    source.stages[1][0].conv1.conv.weight[:2] = 0


def _constant(source: Detector) -> None:
    chain = source.stages[1][0].conv2.act
    chain.prelu.weight.zero_()
    chain.shift_in.bias.fill_(-1e4)
    chain.shift_out.bias.fill_(0.5)


def _negative(source: Detector) -> None:
    source.stages[1][0].conv2.act.prelu.weight.fill_(-0.3)


@pytest.mark.parametrize(("method", "slr"), [("entropy", False), ("mse", False), ("minmax", True)])
@pytest.mark.parametrize("change", [_dead, _constant, _negative])
def test_odd_layers(
    change: Callable[[Detector], None],
    method: str,
    slr: bool,
    source: Detector,
    images: CalibrationImages,
) -> None:
    """Dead channels, an input that never changes, negative slopes: calibrated, frozen, finite."""
    with torch.no_grad():
        change(source)
    observed = observe(source, images)
    detector, layers = calibrate(source, observed, images, Plan(4, Method(method, 99.9), slr=slr))
    rows = {layer.layer: layer for layer in layers}
    before, after = _logits(source, images), _logits(freeze(detector), images)
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() < 4 * before.std() + 0.5
    if change is _dead:
        assert rows["stages.1.0.conv1"].dead_channels == 2
        assert sum(layer.dead_channels for layer in layers) == 2
    elif change is _constant:
        row = rows["stages.1.0.conv2"]
        assert row.seen == (0.5, 0.5)
        assert row.low - row.step / 2 <= 0.5 <= row.high + row.step / 2


def test_too_few_values(source: Detector, observed: Seen) -> None:
    """The layer with the fewest, what the method needs, what to do."""
    with pytest.raises(CalibrationError) as caught:
        quantise(source, observed, Plan(4, Method("percentile")))
    text = str(caught.value)
    assert "--method percentile needs 20,000 to mean anything" in text
    assert "use --method minmax" in text
    check_enough(observed, Plan(4, Method("minmax")))


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ((("stages.9.0.conv1", 8),), r"has no layer 'stages.9.0.conv1'"),
        ((("stages.0.0.conv1", 5),), r"a layer's width is one of 1, 2, 3, 4, 8"),
        ((("stages.0.0.conv1", 1),), r"layers of 1 bit have a weight quantizer of their own"),
    ],
)
def test_widths_that_cannot_be(
    widths: tuple[tuple[str, int], ...], said: str, source: Detector, observed: Seen
) -> None:
    with pytest.raises(CalibrationError, match=said):
        quantise(source, observed, Plan(4, layer_bits=widths))


def test_one_bit(source: Detector, images: CalibrationImages, observed: Seen) -> None:
    """Signs and their mean for the weights, two levels for the activations."""
    detector, _ = calibrate(source, observed, images, Plan(1))
    assert np.isfinite(_logits(freeze(detector), images)).all()
    kinds = {conv.kind for name, conv in quantised_convolutions(detector) if "stem" not in name}
    assert kinds == {"binary"}


@pytest.mark.parametrize("arch", ["mobilenetv2", "npr_resnet50", "n2uq_resnet18"])
def test_other_networks(arch: str, make_source: Make, images: CalibrationImages) -> None:
    """As the other one, by a small part of its logit's spread.

    Statistics of noise would leave an untrained MobileNetV2 with one logit for all images.
    """
    source = make_source(arch).train()
    with torch.no_grad():
        for _ in range(30):
            _logits(source, images)
    source.eval()
    detector, _ = calibrate(source, observe(source, images), images, Plan(8))
    before, after = _logits(source, images), _logits(freeze(detector), images)
    assert np.abs(after - before).max() < 0.5 * before.std()
