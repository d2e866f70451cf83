"""What CQB's two paths carry (paper Fig. 6, Eq. 6-9), convolution by convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .cqb import CQB


class Paths(NamedTuple):
    """One convolution's two paths and their sum, each ``[N, C, H, W]`` float32, and alpha.

    Attributes:
        auxiliary: the shortcut's output, before it is weighted.
        main: the quantised convolution's, before alpha.
        sum: ``alpha * main + (1 - alpha) * auxiliary``, as evaluation computes it.
    """

    auxiliary: Tensor
    main: Tensor
    sum: Tensor
    alpha: float


def both_paths(network: nn.Module, images: Tensor) -> dict[str, Paths]:
    """Paths of every connected convolution for ``images`` uint8 ``[N, 3, H, W]``, by layer."""
    connected = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, CQB) and layer.shortcut is not None and layer.alpha is not None
    ]
    inputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, arguments: inputs.__setitem__(name, arguments[0])

    # On the chain, because a block calls its first layer in two halves and not as a whole.
    handles = [layer.act.register_forward_pre_hook(note(name)) for name, layer in connected]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        return {name: _paths(layer, inputs[name]) for name, layer in connected}


def _paths(layer: CQB, x: Tensor) -> Paths:
    assert layer.shortcut is not None and layer.alpha is not None  # noqa: S101, PT018
    activated = layer.act(x)
    main = layer.conv(activated)
    return Paths(layer.shortcut(x), main, layer.combine(x, activated), float(layer.alpha.detach()))


def heat(values: Tensor) -> Tensor:
    """Mean magnitude over the channels: ``[N, C, H, W]`` to ``[N, H, W]``."""
    return values.abs().mean(dim=1)


__all__ = ["Paths", "both_paths", "heat"]
