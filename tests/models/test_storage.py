"""What is stored in theory, against what frozen checkpoints really hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from qmdd.models import CQB, ActivationChain, Detector, QuantConv2d, build_detector
from qmdd.models.checkpoint import checkpoint_bytes, freeze
from qmdd.models.stats import parameters
from qmdd.models.storage import KINDS, Stored, bytes_by_kind, stored_numbers

DetectorFactory = Callable[..., Detector]


def header_of(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def held_bytes(data: bytes) -> int:
    """Bytes of a checkpoint's tensors but its tables and batch-norm's counters."""
    return sum(
        entry["data_offsets"][1] - entry["data_offsets"][0]
        for name, entry in header_of(data).items()
        if not name.endswith((".table", ".num_batches_tracked"))
    )


@pytest.mark.parametrize(
    ("arch", "bits", "options"),
    [
        ("resnet23", 1, {}),
        ("resnet23", 2, {}),
        ("resnet23", 3, {"layer_bits": {"stages.0.0.conv1": 8, "stages.1.0.downsample": 4}}),
        ("resnet50", 4, {"activation": "lsq", "weight": "lsq", "slr": False}),
        ("resnet34", 8, {"activation": "minmax", "weight": "minmax", "cqb": False}),
        ("mobilenetv2", 3, {"representation": "rgb", "width": 0.125}),
    ],
)
def test_it_is_what_a_frozen_checkpoint_holds(
    arch: str, bits: int, options: dict[str, object], tiny_detector: DetectorFactory
) -> None:
    detector = tiny_detector(arch, bits, **options)
    latent = stored_numbers(detector)
    frozen = freeze(detector)
    assert sum(item.bytes for item in latent) == held_bytes(checkpoint_bytes(frozen))
    assert stored_numbers(frozen) == latent
    assert sum(item.numbers for item in latent if item.parameter) == parameters(frozen)


def test_the_twin_stores_floats_only(tiny_detector: DetectorFactory) -> None:
    twin = tiny_detector(bits=32)
    stored = stored_numbers(twin)
    assert {item.bits for item in stored} == {32}
    assert sum(item.bytes for item in stored) == held_bytes(checkpoint_bytes(twin))
    assert sum(item.numbers for item in stored if item.parameter) == sum(
        parameter.numel() for parameter in twin.parameters()
    )


def test_kinds_by_hand() -> None:
    """A connected convolution of 4 to 8 channels, 3x3, at 3 bits."""
    kinds = bytes_by_kind(stored_numbers(CQB(4, 8, 3, bits=3)))
    thresholds = 7 + 3  # a, start, scale1, scale2
    slr = 3  # tau, running_max, seen
    assert kinds == {
        "weights": 288 * 3 // 8,
        "scales": 8 * 4,
        "batch-norm": 4 * 8 * 4,
        "shifts and PReLU": 3 * 4 * 4,
        "quantizers": 4 * (thresholds + slr),
        "alphas": 4,
    }
    assert set(kinds) <= set(KINDS)


def test_what_is_used_twice_is_stored_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = QuantConv2d(4, 4, 1, bits=2)
            self.again = self.first
            self.own = nn.Parameter(torch.zeros(5))

    stored = stored_numbers(Twice())
    assert [item for item in stored if item.kind == "weights"] == [
        Stored("first", "weights", 16, 2, True)
    ]
    assert Stored("", "other", 5, 32, True) in stored


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 32])
def test_bytes_of_odd_counts_are_whole(bits: int) -> None:
    """Packed plane by plane, each rounded up to a byte."""
    planes = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 8: (8,), 32: (32,)}[bits]
    want = sum(-(-5 * plane // 8) for plane in planes)
    assert Stored("x", "weights", 5, bits, True).bytes == want


def test_the_quantizers_own_numbers_are_no_parameters() -> None:
    stored = stored_numbers(ActivationChain(4, bits=2))
    assert sum(item.numbers for item in stored if item.parameter) == 12
    assert {item.parameter for item in stored if item.kind == "quantizers"} == {False}


def test_nothing_is_made_or_run() -> None:
    with torch.device("meta"):
        detector = build_detector("mobilenetv2", 2)
    assert sum(item.bytes for item in stored_numbers(detector)) > 10**6
