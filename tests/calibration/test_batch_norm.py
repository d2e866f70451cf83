"""Batch-norm after quantisation: moments against torch, and what aligning does and leaves."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from qmdd.calibration.batch_norm import Moments, Normalisation, align, reestimate
from qmdd.calibration.calibrate import Plan, quantise
from qmdd.calibration.images import CalibrationImages
from qmdd.calibration.ranges import Method
from qmdd.models import Detector
from qmdd.models.histogram import Histogram


def _norms(detector: Detector) -> dict[str, nn.BatchNorm2d]:
    return {n: m for n, m in detector.named_modules() if isinstance(m, nn.BatchNorm2d)}


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_moments_are_those_of_all_together(seed: int, cuts: list[int]) -> None:
    """However the stream is cut."""
    parts = [
        torch.randn(n, 3, 4, 2, generator=torch.Generator().manual_seed(seed + i)) * 3 + 5
        for i, n in enumerate(cuts)
    ]
    found = Moments()
    for part in parts:
        found.add(part)
    whole = torch.cat(parts).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.mean, whole.mean(1))
    torch.testing.assert_close(found.variance, whole.var(1, unbiased=False))


def test_statistics_move_as_the_moments_do() -> None:
    """Spread tripled, mean from 2 to 5; a dead channel that stays dead; one that comes alive."""
    norm = nn.BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 0.0]))
    norm.running_var.copy_(torch.tensor([4.0, 5.0, 0.0]))
    before, after = Moments(), Moments()
    before.add(torch.tensor([[[[1.0, 3.0]], [[7.0, 7.0]], [[0.0, 0.0]]]]))
    after.add(torch.tensor([[[[2.0, 8.0]], [[8.0, 8.0]], [[0.0, 2.0]]]]))
    found = Normalisation.of(norm).moved(before, after, norm.eps)
    # The dead one says nothing of its own scale: it is taken to be the layer's, G = 10.
    wanted = [5 + (1 - 2) * 3, 8 + (2 - 7) * 10**0.5, 1.0]
    assert found.mean.tolist() == pytest.approx(wanted, rel=1e-4)
    assert found.variance.tolist()[0] == pytest.approx(4 * 9, rel=1e-4)
    assert found.gamma.tolist()[0] == 1
    assert all(torch.isfinite(part).all() for part in found)


@given(
    seed=st.integers(0, 999),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-10, 10),
    spread=st.floats(0.1, 10),
)
def test_the_mean_behind_is_kept(seed: int, scale: float, shift: float, spread: float) -> None:
    """Whatever an affine change does to the input, mean and spread behind are kept, in float64.

    So a step that scales a layer's output is made good, on images that have other statistics than
    those of the training; also where the slope has to pass ``1 / sqrt(eps)``.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 2, 3, 3, generator=generator).double() * spread + 1
    norm = nn.BatchNorm2d(2).double()
    norm.running_mean.copy_(torch.randn(2, generator=generator))
    norm.running_var.copy_(torch.rand(2, generator=generator) + 0.1)
    norm.weight.data.copy_(torch.tensor([0.5, -2.0]))
    before, after = Moments(), Moments()
    before.add(x)
    after.add(x * scale + shift)
    wanted = norm.eval()(x)
    Normalisation.of(norm).moved(before, after, norm.eps).set_on(norm)
    torch.testing.assert_close(norm(x * scale + shift), wanted, rtol=1e-5, atol=1e-5)


def test_where_nothing_is_quantised_nothing_changes(
    source: Detector, images: CalibrationImages
) -> None:
    """Few images, others than those of the training: they cancel."""
    same = copy.deepcopy(source)
    align(same, source, (batch.images for batch in images.batches()))
    for name, norm in _norms(source).items():
        found = _norms(same)[name]
        torch.testing.assert_close(found.running_mean, norm.running_mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.running_var, norm.running_var, rtol=1e-5, atol=1e-7)
    assert not same.training


def test_each_layer_is_normalised_as_before(
    source: Detector, images: CalibrationImages, observed: Mapping[str, Histogram]
) -> None:
    """On the same images, one batch: mean and spread behind each batch-norm are the source's."""
    detector, _ = quantise(source, observed, Plan(3, Method("mse")))
    unaligned = copy.deepcopy(detector)
    (batch,) = images.batches()
    align(detector, source, [batch.images])

    def behind(network: Detector) -> dict[str, tuple[Tensor, Tensor]]:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        handles = [
            norm.register_forward_hook(
                lambda _m, _a, out, name=name: found.update(
                    {name: torch.std_mean(out.double(), dim=(0, 2, 3))}
                )
            )
            for name, norm in _norms(network).items()
        ]
        with torch.no_grad():
            network.train()
            for norm in _norms(network).values():
                norm.eval()
            for module in network.modules():
                if hasattr(module, "seen"):
                    module.eval()
            network(batch.images)
        for handle in handles:
            handle.remove()
        return found

    wanted, have, without = behind(source), behind(detector), behind(unaligned)
    far, far_unaligned = [], []
    for name, (spread, mean) in wanted.items():
        floor = float(spread.max()) * 1e-3
        torch.testing.assert_close(have[name][0], spread, rtol=2e-2, atol=floor)
        for found, kept in ((have, far), (without, far_unaligned)):
            kept.append(float(((found[name][1] - mean).abs() / (spread + floor)).max()))
    assert max(far) < 1e-2
    assert max(far_unaligned) > 10 * max(far)


def test_reestimated_statistics_are_the_average_of_the_batches(source: Detector) -> None:
    """Of the first layer, whose input no other statistics touch."""
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randint(0, 256, (4, 3, 64, 64), generator=generator) for _ in range(3)]
    name, norm = next(iter(_norms(source).items()))
    seen: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    reestimate(source, batches)
    handle.remove()
    wanted = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, wanted, rtol=1e-4, atol=1e-5)
    assert (name, norm.momentum, source.training) == (name, 0.1, True)


def test_a_batch_norm_without_statistics() -> None:
    with pytest.raises(ValueError, match="without running statistics"):
        Normalisation.of(nn.BatchNorm2d(2, track_running_stats=False))
