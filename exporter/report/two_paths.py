"""What CQB's two paths carry on one image, as heat maps (the paper's Fig. 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...models.paths import both_paths, heat
from .pictures import HEAT_SIDE, heat_map

#: In this order; the sum is ``alpha * main + (1 - alpha) * auxiliary``.
PARTS = ("auxiliary", "main", "sum")


def two_paths(
    network: nn.Module, image: npt.NDArray[np.uint8]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Every connected convolution on ``image`` uint8 ``[3, h, w]``.

    Returns:
        Plain data (alpha, the range of each map, the weighted paths' root mean squares), and the
        maps by ``layer.part``. Empty for a network without CQB.
    """
    found, maps = [], {}
    with torch.no_grad():
        for layer, paths in both_paths(network, torch.from_numpy(image[np.newaxis])).items():
            row: dict[str, Any] = {
                "layer": layer,
                "alpha": paths.alpha,
                "rms_main": _rms(paths.alpha * paths.main),
                "rms_auxiliary": _rms((1 - paths.alpha) * paths.auxiliary),
                "ranges": {},
            }
            for part in PARTS:
                values = _small(heat(getattr(paths, part)))
                row["ranges"][part] = [float(values.min()), float(values.max())]
                maps[f"{layer}.{part}"] = heat_map(values.numpy())
            found.append(row)
    return found, maps


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _small(values: Tensor) -> Tensor:
    """``[1, h, w]`` averaged down to at most :data:`HEAT_SIDE` a side, ``[h, w]``."""
    height, width = values.shape[1:]
    return F.adaptive_avg_pool2d(values, (min(height, HEAT_SIDE), min(width, HEAT_SIDE)))[0]
