"""A width for every layer within a budget of bytes: a multiple-choice knapsack, solved exactly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import CalibrationError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Choice(NamedTuple):
    """One width of a layer: its packed bytes, and the loss that it alone costs (>= 0)."""

    bits: int
    size: int
    loss: float


class Mixture(NamedTuple):
    """A width for every layer.

    ``size`` in bytes and the sum of losses are those of all layers together.
    """

    bits: dict[str, int]
    size: int
    loss: float


def common_width(widths: Iterable[int]) -> int:
    """The most frequent of ``widths``, the wider one of a tie."""
    return max(Counter(widths).items(), key=lambda item: (item[1], item[0]))[0]


def packed_bytes(weights: int, bits: int) -> int:
    """Bytes of ``weights`` codes of ``bits`` bits, packed."""
    return -(-weights * bits // 8)


def best_mixture(choices: Mapping[str, Sequence[Choice]], budget: int, fixed: int = 0) -> Mixture:
    """The widths with the least sum of losses whose bytes are within ``budget``.

    Dynamic programming over the layers. After each, only states that no other one beats in both
    bytes and loss are kept (of equal ones the first), which loses no optimum: every completion of
    a beaten state is beaten by the same completion of the one that beats it.

    Args:
        choices: widths of each layer.
        budget: bytes.
        fixed: how many of them are spent beforehand; not part of the result's size.

    Raises:
        CalibrationError: even the narrowest widths take more.
    """
    names = list(choices)
    least = [min(c.size for c in choices[name]) for name in names]
    budget -= fixed
    if sum(least) > budget:
        raise CalibrationError(
            f"a budget of {budget + fixed:,} bytes is less than the {sum(least) + fixed:,} that "
            "the narrowest of the widths take; raise it, or add a narrower width"
        )
    size: I64 = np.zeros(1, dtype=np.int64)
    loss: F64 = np.zeros(1)
    steps: list[tuple[I64, I64]] = []  # for each layer: state before, and choice
    rest = sum(least)
    for name, smallest in zip(names, least, strict=True):
        rest -= smallest
        size, loss, came_from, taken = _extend(size, loss, choices[name], budget - rest)
        steps.append((came_from, taken))
    # Sizes ascend and losses fall strictly, so the last state has the least loss.
    state, bits = len(size) - 1, {}
    for name, (came_from, taken) in zip(reversed(names), reversed(steps), strict=True):
        bits[name] = choices[name][int(taken[state])].bits
        state = int(came_from[state])
    return Mixture({name: bits[name] for name in names}, int(size[-1]), float(loss[-1]))


def _extend(
    size: I64, loss: F64, choices: Sequence[Choice], most: int
) -> tuple[I64, F64, I64, I64]:
    """All states with one more layer, without the beaten ones: ascending size, falling loss."""
    if any(not math.isfinite(c.loss) or c.loss < 0 for c in choices):
        raise ValueError("a loss must be finite and not negative")
    sizes = np.concatenate([size + c.size for c in choices])
    losses = np.concatenate([loss + c.loss for c in choices])
    came_from = np.tile(np.arange(len(size)), len(choices))
    taken = np.repeat(np.arange(len(choices)), len(size))
    order = np.lexsort((losses, sizes))
    order = order[sizes[order] <= most]
    lowest = np.minimum.accumulate(losses[order])
    kept = order[np.concatenate([[True], losses[order][1:] < lowest[:-1]])]
    return sizes[kept], losses[kept], came_from[kept], taken[kept]


__all__ = ["Choice", "Mixture", "best_mixture", "common_width", "packed_bytes"]
