"""Costs per layer and in total."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qmdd.models import ARCHITECTURES, CQB, Detector, ModelError, Stem, build_detector
from qmdd.models.conventions import CONVENTIONS, total_ops
from qmdd.models.efficiency import (
    REST,
    config_cost,
    config_of_manifest,
    costs_by_width,
    network_cost,
)
from qmdd.models.stats import layer_stats, parameters
from qmdd.models.storage import stored_numbers


def on_meta(arch: str, bits: int, **options: Any) -> Detector:
    with torch.device("meta"):
        return build_detector(arch, bits, **options)


@pytest.mark.parametrize(
    ("arch", "bits"),
    [*zip(ARCHITECTURES, itertools.cycle((2, 4, 3, 2)), strict=False), ("resnet23", 32)],
)
def test_totals_are_those_of_the_counters(arch: str, bits: int) -> None:
    network = on_meta(arch, bits)
    cost, layers = network_cost(network, arch, bits, 64), layer_stats(network, 64)
    assert cost.parameters == parameters(network)
    assert cost.multiply_adds == sum(layer.multiply_adds for layer in layers)
    assert cost.ops == pytest.approx(total_ops(layers), rel=1e-12)
    assert cost.bops == total_ops(layers, CONVENTIONS["bops"])
    assert cost.bytes == sum(item.bytes for item in stored_numbers(network))
    assert cost.bytes == sum(cost.bytes_by_kind.values())
    # Only N2UQ's networks have something outside their layers' blocks: what closes a block.
    rest = [REST] if arch.startswith("n2uq") else []
    assert [row.name for row in cost.layers] == [layer.name for layer in layers] + rest


@pytest.mark.parametrize(("arch", "widths"), [("resnet23", (1, 3, 8, 32)), ("mobilenetv2", (2, 4))])
def test_every_width_is_as_if_counted_alone(arch: str, widths: tuple[int, ...]) -> None:
    """The run that they share changes nothing."""
    for cost in costs_by_width(arch, widths, 64, cqb=False):
        assert cost == network_cost(on_meta(arch, cost.bits, cqb=False), arch, cost.bits, 64)


def test_a_row_holds_its_whole_block() -> None:
    cost = network_cost(on_meta("resnet23", 2), "resnet23", 2)
    row = next(row for row in cost.layers if row.name == "stages.0.0.conv1.conv")
    weights, channels = 64 * 64 * 9, 64
    assert row.parameters == weights + 2 * channels + 3 * channels + 1
    floats = channels + 4 * channels + 3 * channels + 1 + 6 + 3
    assert row.bytes == weights * 2 // 8 + 4 * floats
    assert row.ops == row.multiply_adds * 2 / 32
    assert cost.layers[-1].parameters == 512 + 1 + 512  # weights, bias, the head's PReLU


def test_mixed_widths_count_layer_by_layer(tiny_detector: Callable[..., Detector]) -> None:
    mixed = tiny_detector(layer_bits={"stages.0.0.conv1": 8})
    plain = {row.name: row for row in network_cost(tiny_detector(), "", 2, 64).layers}
    for row in network_cost(mixed, "", 2, 64).layers:
        other = plain[row.name]
        if row.name == "stages.0.0.conv1.conv":
            assert (row.weight_bits, row.code_bits) == (8, 8)
            assert row.ops == 4 * other.ops
            assert row.bytes > other.bytes
        else:
            assert row == other


class _Own(nn.Module):
    """Runs one block twice, and holds something that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(4, kernel=3, pool=False)
        self.twice = CQB(4, 4, 3, bits=2)
        self.offset = nn.Parameter(torch.zeros(7))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.twice(self.twice(self.stem(image))) + self.offset.sum()
        return out


def test_a_network_of_ones_own() -> None:
    network = _Own()
    cost = network_cost(network, "own", 2, 16)
    names = [row.name for row in cost.layers]
    assert names == ["stem.conv", "twice.conv", "twice.conv", REST]
    first, second, rest = cost.layers[1:]
    assert second == dataclasses.replace(first, parameters=0, bytes=0)
    assert (rest.parameters, rest.bytes, rest.ops) == (7, 28, 0)
    assert cost.parameters == parameters(network)
    assert cost.config is None


def test_a_configuration_is_enough() -> None:
    network = on_meta("mobilenetv2", 3, width=0.25)
    assert config_cost(network.config, 64) == network_cost(network, "mobilenetv2", 3, 64)


def test_plain_data_can_be_read_back() -> None:
    cost = network_cost(on_meta("resnet23", 2), "resnet23", 2)
    data = json.loads(json.dumps(cost.to_dict(layers=True)))
    assert data["multiply_adds"] == sum(row["multiply_adds"] for row in data["layers"])
    assert "layers" not in cost.to_dict()


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "--module"),
        ({"source": {"config": None}}, "--module"),
        ({"source": []}, "--module"),
        ({"source": {"config": {"arch": "vgg"}}}, "arch='vgg' is not supported"),
        ({"source": {"config": {"depth": 3}}}, "keys among"),
        ({"source": {"config": "x"}}, "must be an object"),
    ],
)
def test_a_manifest_without_a_usable_configuration(manifest: object, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        config_of_manifest(manifest, Path("here"))  # type: ignore[arg-type]
    assert str(error.value).startswith("here: ")
