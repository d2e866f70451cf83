"""What a foreign ResNet is made of, read off the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..config import DetectorConfig
from ..errors import ModelError

#: Channels of the published stems, at width 1.
STEM_CHANNELS = 64
_BLOCK = re.compile(r"layer(\d{1,3})\.(\d{1,3})\.")


class Layout(NamedTuple):
    """``depths``: blocks per stage; ``bottleneck``: whether blocks have a third convolution."""

    depths: tuple[int, ...]
    bottleneck: bool

    def __str__(self) -> str:
        kind = "bottlenecks" if self.bottleneck else "basic blocks"
        more = ", ..." if len(self.depths) > 6 else ""
        return f"{', '.join(map(str, self.depths[:6]))}{more} {kind}"


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Blocks are numbered from 0 and stages from 1; one that is left out counts as missing."""
    last: dict[int, int] = {}
    for key in tensors:
        found = _BLOCK.match(key)
        if found:
            stage, position = int(found[1]), int(found[2])
            last[stage] = max(last.get(stage, -1), position)
    depths = tuple(last.get(stage, -1) + 1 for stage in range(1, max(last, default=0) + 1))
    return Layout(depths, any(_BLOCK.match(k) and k.endswith(".conv3.weight") for k in tensors))


def width_of(tensors: Mapping[str, Tensor]) -> float:
    """The factor of all channel counts, from the stem's output channels.

    Raises:
        ModelError: no stem, or a number of channels that no width gives.
    """
    stem = tensors.get("conv1.weight")
    if stem is None or stem.dim() != 4:
        raise ModelError("conv1.weight, the stem, is missing or no convolution")
    channels = stem.shape[0]
    width = channels / STEM_CHANNELS
    if DetectorConfig(width=width).channels(STEM_CHANNELS) != channels:
        raise ModelError(f"conv1.weight has {channels} output channels; a multiple of 4 is needed")
    return width
