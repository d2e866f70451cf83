"""Quantizers by name: what turns floats into the integer codes that a detector computes on."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .base import (
    FULL_PRECISION,
    QUANTIZED_BITS,
    ActivationQuantizer,
    FrozenWeight,
    WeightQuantizer,
    per_channel,
)
from .binary import BinaryActivation, BinaryWeight
from .lsq import LsqActivation, LsqWeight
from .minmax import MinMaxActivation, MinMaxWeight
from .n2uq import N2uqActivation, N2uqWeight
from .slr import SlrActivation

_ACTIVATIONS: dict[str, Callable[[int], ActivationQuantizer]] = {
    "minmax": MinMaxActivation,
    "lsq": LsqActivation,
    "n2uq": N2uqActivation,
    "binary": BinaryActivation,
}
_WEIGHTS: dict[str, Callable[[int, Tensor], WeightQuantizer]] = {
    "minmax": lambda bits, _weight: MinMaxWeight(bits),
    "lsq": LsqWeight,
    "n2uq": lambda bits, _weight: N2uqWeight(bits),
    "binary": lambda bits, _weight: BinaryWeight(bits),
}
#: Names of the activation quantizers, each usable alone or under SLR.
ACTIVATIONS = tuple(_ACTIVATIONS)
#: Names of the weight quantizers.
WEIGHTS = tuple(_WEIGHTS)


def build_activation(kind: str, bits: int, slr: bool) -> ActivationQuantizer:
    """A fresh activation quantizer of ``kind`` (one of :data:`ACTIVATIONS`), under SLR if asked."""
    if kind not in _ACTIVATIONS:
        raise ValueError(f"no activation quantizer {kind!r}; there are {', '.join(ACTIVATIONS)}")
    if not slr:
        return _ACTIVATIONS[kind](bits)
    inner = MinMaxActivation(bits, free=True) if kind == "minmax" else _ACTIVATIONS[kind](bits)
    return SlrActivation(inner)


def build_weight(kind: str, bits: int, weight: Tensor) -> WeightQuantizer:
    """A fresh weight quantizer of ``kind`` (one of :data:`WEIGHTS`) for ``weight``."""
    if kind not in _WEIGHTS:
        raise ValueError(f"no weight quantizer {kind!r}; there are {', '.join(WEIGHTS)}")
    return _WEIGHTS[kind](bits, weight)


__all__ = [
    "ACTIVATIONS",
    "FULL_PRECISION",
    "QUANTIZED_BITS",
    "WEIGHTS",
    "ActivationQuantizer",
    "BinaryActivation",
    "BinaryWeight",
    "FrozenWeight",
    "LsqActivation",
    "LsqWeight",
    "MinMaxActivation",
    "MinMaxWeight",
    "N2uqActivation",
    "N2uqWeight",
    "SlrActivation",
    "WeightQuantizer",
    "build_activation",
    "build_weight",
    "per_channel",
]
