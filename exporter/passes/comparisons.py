"""``x >= t`` so that no runtime loses it: ``x > prev(t)`` where ``t`` is subnormal.

OpenVINO takes constants that are subnormal for zero (measured, 2026.4), GPUs may flush them, and so
does a processor that some library of the process has told to. Then ``0 >= t`` holds for the least
``t`` above zero, which is where a quantizer has its step that asks for ``x > 0``, and zero is the
most frequent input there is. ``x > prev(t)``, ``prev`` the next float below, is the same comparison
for every ``x``, and stays right for zero and for every normal number if ``prev(t)`` is taken for
zero. For ``t`` at zero and just below it is the other way round: there ``>=`` is the safe one.
"""

from __future__ import annotations

import numpy as np

from ...models.float_order import F32

_TINY = np.finfo(np.float32).tiny


def strict_limits(table: F32) -> F32 | None:
    """``u`` such that ``x >= t`` is ``x > u``, flushed to zero or not; none where one has none.

    That is for ``t`` at zero or a subnormal number below, and for minus infinity, which nothing
    lies below.
    """
    safe = (table > 0) | ((table <= -_TINY) & ~np.isneginf(table))
    if not safe.all():
        return None
    with np.errstate(over="ignore"):  # below the lowest finite number is -inf, as it must be
        return np.nextafter(table, np.float32(-np.inf))


def comparison(table: F32) -> tuple[F32, str]:
    """Limits and the operator that compares ``x`` with them: ``>=`` unless a limit is subnormal.

    Args:
        table: thresholds of one comparison, any shape.
    """
    limits = strict_limits(table) if above_zero(table) else None
    return (table, "GreaterOrEqual") if limits is None else (limits, "Greater")


def above_zero(table: F32) -> bool:
    """Whether some threshold is subnormal and positive: taken for zero, 0 would reach it."""
    return bool(((table > 0) & (table < _TINY)).any())
