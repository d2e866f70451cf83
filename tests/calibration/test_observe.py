"""What is seen of a full-precision detector; what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.images import CalibrationImages
from qmdd.calibration.observe import activation_chains, full_precision, observe
from qmdd.calibration.ranges import Method
from qmdd.calibration.train import save_detector
from qmdd.models import Detector, quantised_chains
from qmdd.models.checkpoint import Checkpoint, CheckpointError, freeze
from qmdd.models.histogram import Histogram

Make = Callable[..., Detector]


def test_every_value_of_every_layer_is_counted(
    source: Detector, images: CalibrationImages, observed: Mapping[str, Histogram]
) -> None:
    """As numpy counts what stands before the quantizers, in one batch of all images."""
    (batch,) = images.batches()
    seen: dict[str, np.ndarray] = {}
    for name, chain in activation_chains(source):
        chain.register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: out.numpy()}))
    with torch.no_grad():
        source(batch.images)
    assert list(observed) == list(seen)
    assert len(seen) == 18
    for name, values in seen.items():
        found = observed[name]
        assert found.total == values.size
        assert (found.low, found.high) == (values.min(), values.max())
        counts, edges = found.bins()
        want, _ = np.histogram(values.astype(np.float64), edges)
        np.testing.assert_array_equal(counts, want)
        assert Method("minmax").find(found, 8) == (values.min(), values.max())


@pytest.mark.parametrize("arch", ["mobilenetv2", "npr_resnet50", "n2uq_resnet18"])
def test_layers_are_those_that_get_quantizers(
    arch: str, make_source: Make, images: CalibrationImages
) -> None:
    """Of every kind of network; a chain that closes a block is none."""
    from qmdd.models import build_detector

    found = observe(make_source(arch), images)
    quantised = build_detector(arch, 4, width=0.125)
    assert list(found) == [name for name, _ in quantised_chains(quantised)]
    assert all(histogram.total > 0 for histogram in found.values())


def test_numbers_out_of_hand(source: Detector, images: CalibrationImages) -> None:
    """Finite weights whose results are not: the first such layer is named."""
    with torch.no_grad():
        source.stages[1][0].conv2.conv.bn.weight.fill_(3e38)
        source.stages[1][0].conv2.conv.bn.bias.fill_(3e38)
    with pytest.raises(CalibrationError, match=r"layer stages.1.1.conv1: NaN or infinity"):
        observe(source, images)
    assert not any(module._forward_hooks for module in source.modules())


def test_only_full_precision_is_taken(tiny_detector: Make, tmp_path: Path) -> None:
    """Trainable and frozen ones of few bits are named as what they are."""
    path = tmp_path / "c.safetensors"
    detector = tiny_detector()
    save_detector(detector, path, {})
    with pytest.raises(
        CalibrationError, match=r"a trainable one of 2 bits, and calibration starts"
    ):
        full_precision(Checkpoint(path))
    save_detector(freeze(detector), path, {})
    with pytest.raises(CalibrationError, match=r"a frozen checkpoint of 2 bits"):
        full_precision(Checkpoint(path))


def test_nan_weights(source: Detector, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with torch.no_grad():
        next(m for m in source.modules() if isinstance(m, nn.Linear)).weight[0, 0] = torch.nan
    save_detector(source, path, {})
    with pytest.raises(CheckpointError, match=r"head.fc.weight holds NaN"):
        full_precision(Checkpoint(path))
