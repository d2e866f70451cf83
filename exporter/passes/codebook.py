"""Integer weight codes as a table of levels, and as parts whose sums stay exact in float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .base import refuse

#: Integers below it are exact in float32, whatever the order of a sum.
EXACT_LIMIT = 2**24
#: Factors between the two parts of a weight, the preferred one first.
_BASES = (16, 8, 32, 4)


class Codebook(NamedTuple):
    """``code = first + stride * index``, ``index`` in ``0 .. levels - 1``."""

    first: int
    stride: int
    levels: int

    @property
    def bits(self) -> int:
        """Narrowest supported width of an index."""
        return next(b for b in (1, 2, 3, 4, 8, 16) if self.levels <= 2**b)


def codebook_of(codes: np.ndarray) -> Codebook:
    """The shortest arithmetic progression that holds all ``codes``."""
    first, last = int(codes.min()), int(codes.max())
    stride = int(np.gcd.reduce(codes.astype(np.int64).reshape(-1) - first))
    stride = max(stride, 1)
    return Codebook(first, stride, (last - first) // stride + 1)


def largest_sum(codes: np.ndarray, top: int) -> int:
    """Bound of ``|sum|`` over all output channels.

    Args:
        codes: integer weights ``[C_out, ...]``.
        top: largest magnitude of an activation code.
    """
    return int(np.abs(codes.astype(np.int64)).reshape(codes.shape[0], -1).sum(1).max()) * top


def exact_base(layer: str, codes: np.ndarray, top: int, widest: int | None = None) -> int:
    """The factor between two parts of weights whose sums both stay below 2^24.

    Args:
        layer: named where it cannot be done.
        codes: integer weights ``[C_out, ...]``.
        top: largest magnitude of an activation code.
        widest: largest magnitude that a part's weights may have; any by default.

    Returns:
        1 where one part will do; else what :func:`parts_of` takes.

    Raises:
        ExportError: two parts do not do either.
    """

    def fits(part: np.ndarray) -> bool:
        small = widest is None or int(np.abs(part).max()) <= widest
        return small and largest_sum(part, top) < EXACT_LIMIT

    for base in (1, *_BASES):
        if all(fits(part) for _, part in parts_of(codes, base)):
            return base
    raise refuse(
        layer, "its integer sums pass 2^24 even in two parts", "use fewer bits or channels"
    )


def parts_of(values: np.ndarray, base: int) -> list[tuple[int, np.ndarray]]:
    """``[(1, values)]`` for base 1, else ``[(base, high), (1, low)]``: ``base * high + low``."""
    if base == 1:
        return [(1, values)]
    low = (values + base // 2) % base - base // 2
    return [(base, (values - low) // base), (1, low)]
