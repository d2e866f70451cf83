"""Networks, number by number: what was changed is found, where it was changed, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from qmdd.exporter.comparing.networks import compare_networks
from qmdd.models import Detector, quantised_chains, quantised_convolutions
from qmdd.models.checkpoint import freeze
from qmdd.models.quantizers import N2uqActivation


@pytest.fixture(scope="module")
def detector(tiny_detector: Any) -> Detector:
    made: Detector = tiny_detector()
    return made


def differing(found: dict[str, Any]) -> list[str]:
    return [row["layer"] for row in found["layers"] if not row["same"]]


def row_of(found: dict[str, Any], layer: str) -> dict[str, Any]:
    return next(row for row in found["layers"] if row["layer"] == layer)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_and_its_copy_are_the_same_frozen_or_not(
    detector: Detector, frozen: bool
) -> None:
    other = copy.deepcopy(detector)
    found = compare_networks(detector, freeze(other) if frozen else other)
    assert found["same"]
    assert differing(found) == []
    assert found["rest"]["different"] == 0
    assert found["rest"]["count"] > 1000
    compared = [row["weights"]["count"] for row in found["layers"]]
    convs = dict(quantised_convolutions(detector))
    assert sum(compared) == sum(conv.latent().numel() for conv in convs.values())
    assert sum(row["thresholds"] is not None for row in found["layers"]) == len(
        quantised_chains(detector)
    )


def test_one_weight_code_is_found(detector: Detector) -> None:
    other = freeze(copy.deepcopy(detector))
    conv = dict(quantised_convolutions(other))["stages.1.0.conv1.conv"]
    codes = conv.frozen().codes
    codes[3, 2, 1, 0] = 1 if int(codes[3, 2, 1, 0]) != 1 else -1
    found = compare_networks(detector, other)
    assert differing(found) == ["stages.1.0.conv1"]
    row = row_of(found, "stages.1.0.conv1")
    assert row["weights"]["different"] == 1
    assert (row["scales"]["different"], row["thresholds"]["different"]) == (0, 0)
    assert not found["same"]


def test_moved_thresholds_are_found(detector: Detector) -> None:
    other = copy.deepcopy(detector)
    chain = dict(quantised_chains(other))["stages.2.0.conv2"]
    inner = next(m for m in chain.modules() if isinstance(m, N2uqActivation))
    with torch.no_grad():
        inner.start += 0.25
    found = compare_networks(detector, other)
    assert differing(found) == ["stages.2.0.conv2"]
    row = row_of(found, "stages.2.0.conv2")
    assert row["thresholds"] == {"count": 3, "different": 3}
    assert found["rest"]["different"] == 0


def test_what_codes_stand_for_is_the_rest(detector: Detector) -> None:
    other = copy.deepcopy(detector)
    chain = dict(quantised_chains(other))["stages.2.0.conv2"]
    inner = next(m for m in chain.modules() if isinstance(m, N2uqActivation))
    with torch.no_grad():
        inner.scale2 *= 2
        other.stem.conv.bn.running_mean[1] += 1
    other.stem.conv.bn.num_batches_tracked += 1  # changes nothing that is computed
    found = compare_networks(detector, other)
    assert differing(found) == []
    assert found["rest"]["different"] == 2
    assert not found["same"]


def test_of_other_widths_codes_are_not_compared(detector: Detector, tiny_detector: Any) -> None:
    found = compare_networks(detector, tiny_detector(bits=4))
    row = row_of(found, "stages.0.0.conv1")
    assert row["bits"] == {"a": 2, "b": 4}
    assert row["activation_bits"] == {"a": 2, "b": 4}
    assert (row["weights"], row["scales"], row["thresholds"]) == (None, None, None)
    assert not row["same"]
    assert row_of(found, "stem")["same"]  # 8 bits in both, of one seed


def test_against_its_full_precision_twin(detector: Detector, tiny_detector: Any) -> None:
    found = compare_networks(tiny_detector(bits=32), tiny_detector(bits=32))
    assert found["same"]
    mixed = compare_networks(detector, tiny_detector(bits=32))
    assert row_of(mixed, "stages.0.0.conv1")["bits"] == {"a": 2, "b": 32}
    assert not mixed["same"]


def test_layers_that_only_one_has(detector: Detector, tiny_detector: Any) -> None:
    deeper = tiny_detector(arch="resnet34")
    found = compare_networks(detector, deeper)
    row = row_of(found, "stages.0.2.conv1")
    assert row["shape"] == {"a": None, "b": (8, 8, 3, 3)}
    assert row["weights"] is None
    assert not row["same"]
    back = compare_networks(deeper, detector)
    assert row_of(back, "stages.0.2.conv1")["shape"] == {"a": (8, 8, 3, 3), "b": None}
    assert found["rest"] == back["rest"]
