"""Parameters and multiply-adds against a second counter that is not ours and not torch's: ptflops.

Its engine catches the operators as they run; convolutions and matrix products are all that it
counts, one a multiply-add, and one more for each bias that a linear layer adds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ptflops import get_model_complexity_info
from torch import nn

from qmdd.models import ARCHITECTURES, Detector, QuantConv2d, build_detector
from qmdd.models.stats import layer_stats, parameters

#: The head's one output adds one bias.
BIAS = 1


def counted(network: nn.Module, side: int, device: str) -> tuple[int, int]:
    """Multiply-adds and parameters, by ptflops."""
    image = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device)
    with torch.no_grad(), torch.device(device):
        macs, learned = get_model_complexity_info(
            network,
            (3, side, side),
            as_strings=False,
            print_per_layer_stat=False,
            backend="aten",
            input_constructor=lambda _shape: image,
        )
    assert isinstance(macs, int)
    assert isinstance(learned, int)
    return macs, learned


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("side", [256, 71])
def test_the_twins(arch: str, side: int) -> None:
    with torch.device("meta"):
        twin = build_detector(arch, 32)
    macs, learned = counted(twin, side, "meta")
    assert sum(row.multiply_adds for row in layer_stats(twin, side)) == macs - BIAS > 10**7
    assert parameters(twin) == learned


@pytest.mark.parametrize("options", [{"cqb": False}, {"representation": "rgb"}, {"width": 0.5}])
@pytest.mark.parametrize("arch", ["resnet23", "mobilenetv2"])
def test_the_twins_of_other_topologies(arch: str, options: dict[str, object]) -> None:
    with torch.device("meta"):
        twin = build_detector(arch, 32, **options)
    macs, learned = counted(twin, 64, "meta")
    assert sum(row.multiply_adds for row in layer_stats(twin, 64)) == macs - BIAS
    assert parameters(twin) == learned


@pytest.mark.parametrize("arch", ["resnet23", "mobilenetv2"])
def test_what_a_quantised_detector_really_runs(
    arch: str, tiny_detector: Callable[..., Detector]
) -> None:
    """Its evaluation on codes: the same convolutions, counted over real numbers."""
    detector = tiny_detector(arch, 3, width=0.125 if arch == "mobilenetv2" else 1.0)
    macs, _ = counted(detector, 64, "cpu")
    assert sum(row.multiply_adds for row in layer_stats(detector, 64)) == macs - BIAS


def test_a_layer_that_is_not_counted_would_be_seen() -> None:
    """The comparison can fail: with a convolution more, the counters differ by just that."""
    with torch.device("meta"):
        twin = build_detector("resnet23", 32)
        more = QuantConv2d(3, 5, 1, bits=32)
    before = counted(twin, 64, "meta")

    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twin, self.more = twin, more

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.more(image.float())
            out: torch.Tensor = self.twin(image)
            return out

    after = counted(Wider(), 64, "meta")
    assert (after[0] - before[0], after[1] - before[1]) == (15 * 64 * 64, 15 + 2 * 5)
