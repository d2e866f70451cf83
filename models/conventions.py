"""OPs: what a multiply-add of few bits is worth, in multiply-adds of 32 bits.

The paper's Table 4 gives "OPs" for low-bit networks beside FLOPs for full-precision ones, and no
formula. Three candidates; ``w`` and ``a`` are the widths of weight and activation, ``k`` the wider
of the two::

    word    OPs = sum of macs * k / 32              32/k codes share a word of 32 bits
    bops    OPs = FLOPs + BOPs / 64                 Bi-Real Net, ReActNet: 64 binary operations to
                BOPs = sum of macs * w * a          one; w * a beyond one bit. Float layers: FLOPs
    half    OPs = FLOPs + sum of macs * k / 64      64/k codes share a word of 64 bits

A multiply-add counts once everywhere: ResNet-23 has 2.67 G of them at 256 pixels, the paper says
2.7.

``word`` is Table 4's. What does not depend on ``k`` cancels in a difference of two of its rows:
``ours(3) - ours(2) = 0.32 - 0.25``, so 0.07 G for a bit, between 0.06 and 0.08 with the rounding.
The 3x3 convolutions are M = 2.491 G, and M * (f(3) - f(2)) is 0.078 by ``word``, 0.039 by ``half``
and 0.195 by ``bops``. By ``word`` LSQ's row at 4 bits leaves 0.37 - M/8 = 0.059 G for all the rest,
so the stem, 0.154 G, cannot be in it as float; with its 8 bits it is 0.039. :mod:`.table4` computes
these, and what each row of the table has left over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .quantizers import FULL_PRECISION
from .stats import LayerStats


class Convention(NamedTuple):
    """A way to count OPs: ``factor(w, a)`` is what one multiply-add of these widths counts."""

    name: str
    formula: str
    factor: Callable[[int, int], float]


def _word(weight: int, code: int) -> float:
    return max(weight, code) / 32


def _bops(weight: int, code: int) -> float:
    return 1.0 if FULL_PRECISION in (weight, code) else weight * code / 64


def _half(weight: int, code: int) -> float:
    return 1.0 if FULL_PRECISION in (weight, code) else max(weight, code) / 64


CONVENTIONS = {
    "word": Convention("word", "macs * k/32", _word),
    "bops": Convention("bops", "FLOPs + macs * w*a/64", _bops),
    "half": Convention("half", "FLOPs + macs * k/64", _half),
}
#: Table 4's.
DEFAULT = CONVENTIONS["word"]


def layer_ops(layer: LayerStats, convention: Convention = DEFAULT) -> float:
    """OPs of one layer for one image."""
    return layer.multiply_adds * convention.factor(layer.weight_bits, layer.code_bits)


def total_ops(layers: Iterable[LayerStats], convention: Convention = DEFAULT) -> float:
    """OPs of ``layers`` for one image."""
    return sum(layer_ops(layer, convention) for layer in layers)
