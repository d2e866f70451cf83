"""Infinities and NaN before a quantizer are refused when the network is traced, not met later."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.exporter.errors import ExportError
from qmdd.exporter.trace import canonical_from_detector
from qmdd.models import CQB, QuantConv2d, Stem

LARGEST = float(np.finfo(np.float32).max)
Change = Callable[["Network"], Tensor]


class Network(nn.Module):
    """A stem, two quantised layers, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(8, kernel=3, pool=False)
        self.first = CQB(8, 8, 3, stride=2, bits=2)
        self.second = CQB(8, 8, 3, bits=2)
        self.head = nn.Linear(8, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(image)))
        logit: Tensor = self.head(x.mean(dim=(2, 3)))
        return logit.squeeze(1)


def _alpha(network: Network) -> Tensor:
    assert network.first.alpha is not None
    return network.first.alpha


def _bn(conv: QuantConv2d) -> nn.BatchNorm2d:
    return conv.bn


#: What is set to which value: a finite parameter each, as a checkpoint may hold it.
CASES: dict[str, tuple[Change, float]] = {
    "a variance below zero": (lambda n: _bn(n.first.conv).running_var, -1.0),
    "a product that overflows": (lambda n: _bn(n.first.conv).weight, LARGEST),
    "a sum that overflows": (lambda n: _bn(n.stem.conv).bias, LARGEST),
    "a shift that overflows": (lambda n: n.second.act.shift_in.bias, LARGEST),
    "a slope that overflows": (lambda n: n.second.act.prelu.weight, LARGEST),
    "a share that overflows": (_alpha, -LARGEST),
}


@pytest.mark.parametrize("case", CASES)
def test_what_could_leave_the_range_is_refused(case: str) -> None:
    torch.manual_seed(0)
    network = Network().eval()
    change, value = CASES[case]
    with torch.no_grad():
        change(network).reshape(-1)[-1:].fill_(value)
    with pytest.raises(ExportError, match=r"can leave float32's range \(up to .*\): codes"):
        canonical_from_detector(network)


def test_large_numbers_within_the_range_are_not() -> None:
    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        _bn(network.first.conv).weight.fill_(1e20)
    canonical_from_detector(network)


def test_behind_the_last_quantizer_everything_is_allowed() -> None:
    """A logit that is no number is the business of whoever reads it: it leads to no code."""
    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        _bn(network.second.conv).bias.fill_(LARGEST)
    canonical_from_detector(network)
