"""The float32 numbers as an ordered line of integers, and bisection on it (DESIGN 3.2).

Every float32 but NaN gets a key: ``key(a) < key(b)`` exactly when ``a < b``; both zeros share key
0, and the infinities are the ends of the line. A monotone step function of one float is then
fully described by the keys at which it steps, and each step is found in 32 evaluations of the
function itself: no closed form, so no rounding of ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_SIGN = np.int64(0x7FFFFFFF)
#: Key of the largest finite float32; those of finite numbers run from ``-MAX_KEY`` to ``MAX_KEY``.
MAX_KEY = int(np.float32(np.finfo(np.float32).max).view(np.int32))
#: Key of infinity.
INFINITE_KEY = MAX_KEY + 1


def key_from_float(x: npt.ArrayLike) -> I64:
    """Ordered integer keys of float32 numbers (any shape). ``-0.0`` and ``0.0`` both give 0.

    >>> int(key_from_float(1.0)) - int(key_from_float(np.nextafter(np.float32(1), np.float32(0))))
    1
    """
    bits = np.asarray(x, dtype=np.float32).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & _SIGN))


def float_from_key(key: npt.ArrayLike) -> F32:
    """Inverse of :func:`key_from_float` (key 0 gives ``+0.0``)."""
    wide = np.asarray(key, dtype=np.int64)
    bits = np.where(wide >= 0, wide, (-wide) | np.int64(0x80000000)).astype(np.uint32)
    return bits.view(np.float32)


def neighbours(x: npt.ArrayLike, radius: int) -> F32:
    """All float32 numbers within ``radius`` steps of each ``x``; shape ``x.shape + (2r+1,)``."""
    offsets = np.arange(-radius, radius + 1, dtype=np.int64)
    keys = key_from_float(x)[..., None] + offsets
    return float_from_key(np.clip(keys, -MAX_KEY, MAX_KEY))


def bisect_thresholds(codes: Callable[[F32], npt.NDArray[np.integer]], rows: int, top: int) -> F32:
    """Thresholds of monotone step functions, by bisection over all float32 numbers but NaN.

    Args:
        codes: maps float32 ``[rows, m]`` to integer codes ``[rows, m]`` in ``0..top``; row ``c``
            is the function of channel ``c`` and must be non-decreasing.
        rows: number of functions searched at once.
        top: the largest code, ``2**bits - 1``.

    Returns:
        float32 ``[rows, top]``: entry ``[c, i]`` is the smallest float that function ``c`` maps to
        a code above ``i``: ``-inf`` where every float is, minus infinity too; ``+inf`` where no
        finite one is.
    """
    want = np.arange(1, top + 1, dtype=np.int64)[None, :]
    low = np.full((rows, top), -INFINITE_KEY, dtype=np.int64)
    high = np.full((rows, top), INFINITE_KEY, dtype=np.int64)
    always = codes(float_from_key(low)) >= want
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        reached = codes(float_from_key(middle)) >= want
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle)
    return np.where(always, np.float32(-np.inf), float_from_key(high)).astype(np.float32)
