"""Sizes of frozen checkpoints at full width."""

from __future__ import annotations

import pytest
import torch

from qmdd.models import build_detector
from qmdd.models.checkpoint import checkpoint_bytes, freeze


@pytest.mark.parametrize(("bits", "largest"), [(2, 4_500_000), (3, 6_500_000), (4, 8_500_000)])
def test_resnet23_frozen(bits: int, largest: int) -> None:
    """15.8 M weights at their own width and less than 0.6 MB beside them; issue's bar: 4.5 MB."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = freeze(build_detector("resnet23", bits).eval())
    size = len(checkpoint_bytes(detector))
    weights = sum(
        buffer.numel() for name, buffer in detector.named_buffers() if name.endswith(".codes")
    )
    assert weights * bits / 8 < size <= largest
