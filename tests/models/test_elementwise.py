"""Float operations outside convolutions, by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qmdd.models import CQB, Detector, build_detector
from qmdd.models.elementwise import elementwise_operations


class _Plain(nn.Module):
    """Each kind of operation once, on ``[1, 3, 8, 8]``."""

    def forward(self, image: Tensor) -> Tensor:
        x = image.float() * 0.5  # 192
        x = F.relu(x - 1.0)  # 192 + 192
        x = F.avg_pool2d(x, 2)  # 48 windows of 4
        x = F.max_pool2d(x, 2, stride=1)  # 27 windows of 4
        x = torch.cat([x, x], dim=1)  # moved, not computed
        return x.mean(dim=(2, 3)) / 3.0  # 54 read, 6 divided


class _Connected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.block = CQB(3, 6, 3, 2, bits=2)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.block(self.norm(image.float()))
        return out


def test_each_kind_of_operation() -> None:
    assert elementwise_operations(_Plain(), 8) == 192 * 3 + 48 * 4 + 27 * 4 + 54 + 6


def test_a_connected_block() -> None:
    """Batch-norm of 192; chain of 192; 6x4x4 out: its batch-norm, alpha, shortcut, sum; pooling."""
    out = 6 * 4 * 4
    chain, pooled = 3 * 192, 2 * (3 * 8 * 4) + 2 * (3 * 4 * 4)
    # One more: 1 - alpha.
    assert elementwise_operations(_Connected(), 8) == 2 * 192 + chain + out * (2 + 3) + pooled + 1


def test_quantizers_cost_nothing(tiny_detector: Callable[..., Detector]) -> None:
    """The same for every width, and for a network with numbers in it."""
    with torch.device("meta"):
        counts = {elementwise_operations(build_detector("resnet23", k), 64) for k in (1, 2, 8, 32)}
    assert len(counts) == 1
    tiny = tiny_detector("resnet23", 2, slr=False)
    assert elementwise_operations(tiny, 64) == elementwise_operations(tiny_detector(bits=3), 64)


def test_connections_add_to_it() -> None:
    with torch.device("meta"):
        with_cqb, without = (build_detector("resnet23", 2, cqb=cqb) for cqb in (True, False))
    assert elementwise_operations(with_cqb, 64) > elementwise_operations(without, 64)
