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
from .lsq import LsqActivation, LsqWeight
from .minmax import MinMaxActivation, MinMaxWeight
from .n2uq import N2uqActivation, N2uqWeight
from .slr import SlrActivation

#: Names of the activation quantizers, each usable alone or under SLR.
ACTIVATIONS = ("minmax", "lsq", "n2uq")
#: Names of the weight quantizers.
WEIGHTS = ("minmax", "lsq", "n2uq")


def build_activation(kind: str, bits: int, slr: bool) -> ActivationQuantizer:
    """A fresh activation quantizer of ``kind`` (one of :data:`ACTIVATIONS`), under SLR if asked."""
    kinds: dict[str, Callable[[int], ActivationQuantizer]] = {
        "minmax": MinMaxActivation,
        "lsq": LsqActivation,
        "n2uq": N2uqActivation,
    }
    if kind not in kinds:
        raise ValueError(f"no activation quantizer {kind!r}; there are {', '.join(kinds)}")
    inner = kinds[kind](bits)
    return SlrActivation(inner) if slr else inner


def build_weight(kind: str, bits: int, weight: Tensor) -> WeightQuantizer:
    """A fresh weight quantizer of ``kind`` (one of :data:`WEIGHTS`) for ``weight``."""
    if kind == "minmax":
        return MinMaxWeight(bits)
    if kind == "lsq":
        return LsqWeight(bits, weight)
    if kind == "n2uq":
        return N2uqWeight(bits)
    raise ValueError(f"no weight quantizer {kind!r}; there are {', '.join(WEIGHTS)}")


__all__ = [
    "ACTIVATIONS",
    "FULL_PRECISION",
    "QUANTIZED_BITS",
    "WEIGHTS",
    "ActivationQuantizer",
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
