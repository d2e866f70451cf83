"""All 2^32 float32 bit patterns in blocks, and the codes that a threshold table gives a block.

Within one sign, bit patterns in ascending order are floats in order too. So the codes of a block
need no comparison a float: the places where they change are looked up, one search a threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from qmdd.models.float_order import F32, INFINITE_KEY, float_from_key, key_from_float

#: Floats of a block: small enough that what a quantizer makes of them stays in a core's cache.
BLOCK = 1 << 16
#: Blocks that all bit patterns take.
BLOCKS = (1 << 32) // BLOCK

Codes = npt.NDArray[np.uint8]
#: Codes of float32 ``[m]``, whole numbers of any type.
CodesOf = Callable[[F32], npt.NDArray[np.generic]]


def block_of(index: int) -> F32:
    """The floats whose bits are ``index * BLOCK .. (index + 1) * BLOCK - 1``."""
    first = np.uint32(index * BLOCK)
    return (np.arange(BLOCK, dtype=np.uint32) + first).view(np.float32)


def table_codes(x: F32, table: F32) -> Codes:
    """``#{i: table_i <= x}`` of a block, 0 for NaN.

    Args:
        x: ascending, or descending, NaNs at the end.
        table: ascending, at most 255 entries, no NaN.
    """
    numbers = int(np.count_nonzero(~np.isnan(x)))
    codes = np.zeros(x.size, dtype=np.uint8)
    if not numbers:
        return codes
    falling = bool(x[0] > x[numbers - 1])
    line = x[:numbers][::-1] if falling else x[:numbers]
    edges = np.searchsorted(line, table, side="left")
    runs = np.diff(edges, prepend=0, append=numbers)
    found = np.repeat(np.arange(table.size + 1, dtype=np.uint8), runs)
    codes[:numbers] = found[::-1] if falling else found
    return codes


def wrong_codes(codes_of: CodesOf, table: F32, index: int) -> int:
    """Floats of a block whose code by ``codes_of`` is not the table's."""
    x = block_of(index)
    return int(np.count_nonzero(np.asarray(codes_of(x)) != table_codes(x, table)))


def telling_blocks(table: F32) -> list[int]:
    """Blocks around every threshold and every landmark: zeros, subnormals, infinities, NaN."""
    marks = np.array([0.0, 1e-45, 1e-38, 1.0, np.finfo(np.float32).max], dtype=np.float32)
    keys = key_from_float(np.concatenate([table, marks, -marks]))
    beside = np.clip(keys[:, None] + np.array([-1, 0, 1]), -INFINITE_KEY, INFINITE_KEY)
    bits = float_from_key(beside.reshape(-1)).view(np.uint32).astype(np.int64)
    # NaNs of both signs, quiet and signalling; the zero with a sign.
    bits = np.append(bits, [0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x80000000])
    return sorted({int(b) // BLOCK for b in bits})
