"""Each layer quantised alone: against a network changed by hand; suggestions for a budget."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.calibration.calibrate import Plan, set_range
from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.images import CalibrationImages
from qmdd.calibration.mixture import packed_bytes
from qmdd.calibration.observe import observe
from qmdd.calibration.ranges import Method
from qmdd.calibration.sensitivity import Loss, Score, measure
from qmdd.calibration.session import open_session
from qmdd.calibration.suggest import check, stem_bytes, suggest
from qmdd.calibration.train import save_detector
from qmdd.calibration.weight_steps import fit_weight_steps
from qmdd.models import Detector, quantised_convolutions
from qmdd.models.histogram import Histogram
from qmdd.models.quantizers import LsqWeight, build_activation

Seen = Mapping[str, Histogram]
PLANS = [Plan(bits, Method("mse")) for bits in (2, 8)]


@pytest.fixture(scope="module")
def found(
    _shared_source: Detector, images: CalibrationImages, observed: Seen
) -> tuple[list[Loss], Score]:
    """Measured once, on a copy, which must come out as it went in."""
    source = copy.deepcopy(_shared_source)
    result = measure(source, observed, images, PLANS)
    for name, tensor in _shared_source.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name
    assert not any(module._forward_hooks for module in source.modules())
    return result


def _by_hand(source: Detector, observed: Seen, x: Tensor, layer: str, bits: int) -> Tensor:
    """Logits with one CQB's codes and weights of ``bits`` bits, its batch-norm set by moments."""
    changed = copy.deepcopy(source)
    block = changed.get_submodule(layer)
    quantizer = build_activation("minmax", bits, False).eval()
    set_range(quantizer, observed[layer], Method("mse"))
    conv = block.conv

    def quantised(_module: nn.Module, _arguments: object, out: Tensor) -> Tensor:
        codes = quantizer.count(out) - quantizer.zero.double()
        return (codes * quantizer.step.double()).float()

    sums: dict[str, Tensor] = {}
    for name, network in (("before", source), ("after", changed)):
        norm = network.get_submodule(layer).conv.bn
        norm.register_forward_pre_hook(
            lambda _m, args, name=name: sums.update({name: args[0].double()})
        )
    steps = LsqWeight(bits, conv.latent())
    fit_weight_steps(steps, conv.latent())
    codes, scale = steps.freeze(conv.latent())
    with torch.no_grad():
        source(x)
        block.act.register_forward_hook(quantised)
        conv.weight.copy_(codes * scale.reshape(-1, 1, 1, 1))
        changed(x)
        m, m_q = (sums[name].mean(dim=(0, 2, 3)) for name in ("before", "after"))
        v, v_q = (sums[n].var(dim=(0, 2, 3), unbiased=False) for n in ("before", "after"))
        grown = (v_q + v_q.sum() / v.sum() * 1e-5) / (v + 1e-5)
        norm, old = conv.bn, source.get_submodule(layer).conv.bn
        norm.running_var.copy_((old.running_var + 1e-5) * grown - 1e-5)
        norm.running_mean.copy_(m_q + (old.running_mean - m) * grown.sqrt())
        return changed(x)


@pytest.mark.parametrize("layer", ["stages.0.1.conv2", "stages.3.2.conv1"])
def test_a_loss_is_that_of_a_network_changed_by_hand(
    layer: str,
    source: Detector,
    images: CalibrationImages,
    observed: Seen,
    found: tuple[list[Loss], Score],
) -> None:
    """Layers whose codes nothing else reads; all twelve images are one batch."""
    (batch,) = images.batches()
    with torch.no_grad():
        logits = source(batch.images)
    wanted = Score()
    changed = _by_hand(copy.deepcopy(source), observed, batch.images, layer, 2)
    wanted.add(changed, logits, batch.labels)
    (loss,) = [row for row in found[0] if (row.layer, row.bits) == (layer, 2)]
    assert loss.logit_mse == pytest.approx(wanted.logit_mse, rel=2e-3)
    assert loss.bce == pytest.approx(wanted.bce - found[1].bce, rel=1e-2, abs=1e-5)
    assert loss.acc == pytest.approx(wanted.acc - found[1].acc)


def test_all_layers_at_all_widths(source: Detector, found: tuple[list[Loss], Score]) -> None:
    """Every convolution but the stem's; fewer bits lose more, and take fewer bytes."""
    names = [name.removesuffix(".conv") for name, _ in quantised_convolutions(source)]
    assert names[0] == "stem"
    for bits in (2, 8):
        assert [row.layer for row in found[0] if row.bits == bits] == names[1:]
    narrow, wide = ([row for row in found[0] if row.bits == bits] for bits in (2, 8))
    for two, eight in zip(narrow, wide, strict=True):
        assert two.logit_mse > eight.logit_mse >= 0
        assert two.packed_bytes == packed_bytes(two.weights, 2)
        assert eight.packed_bytes == eight.weights == two.weights
    assert found[1].logit_mse == 0


@pytest.mark.parametrize("arch", ["mobilenetv2", "n2uq_resnet18"])
def test_other_networks(
    arch: str, make_source: Callable[..., Detector], images: CalibrationImages
) -> None:
    source = make_source(arch)
    losses, _ = measure(source, observe(source, images), images, [Plan(2)])
    assert len(losses) == len(quantised_convolutions(source)) - 1
    assert all(np.isfinite(loss.logit_mse) for loss in losses)
    assert min(loss.logit_mse for loss in losses if not loss.layer.endswith("downsample")) > 0


def test_a_suggestion_is_within_its_budget_and_measured(
    source: Detector, image_folder: Path, tmp_path: Path, found: tuple[list[Loss], Score]
) -> None:
    """Between the narrowest and the widest; no worse a sum than the widest single width's."""
    path = tmp_path / "latent.safetensors"
    save_detector(source, path, {})
    session = open_session(path, image_folder)
    losses, fixed = found[0], stem_bytes(source)
    stem = next(conv for name, conv in quantised_convolutions(source) if name == "stem.conv")
    assert fixed == int(np.prod(stem.weight_shape))
    smallest, largest = (
        fixed + sum(row.packed_bytes for row in losses if row.bits == bits) for bits in (2, 8)
    )
    budget = (smallest + largest) // 2
    mixture = suggest(losses, budget, fixed)
    assert smallest < mixture.size <= budget
    assert set(mixture.bits.values()) == {2, 8}
    narrow = sum(row.logit_mse for row in losses if row.bits == 2)
    assert mixture.loss < narrow
    checked = check(session, mixture, losses, PLANS[0], lambda _what, _done, _total: None)
    assert checked.layer_bits == mixture.bits
    assert checked.uniform is not None
    assert checked.uniform[:2] == (2, smallest)
    assert checked.measured.images == checked.uniform[2].images == 12
    assert 0 < checked.measured.logit_mse < checked.uniform[2].logit_mse
    with pytest.raises(CalibrationError, match="less than the"):
        suggest(losses, smallest - 1, fixed)
