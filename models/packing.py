"""Integer codes packed at their own width, in plain numpy (no torch: the runtime may use it).

A code of ``k`` bits is stored as an *index* ``0 .. 2**k - 1`` into a codebook of the integers that
it stands for (``[-3, -1, 1, 3]`` for the 2-bit weights of N2UQ). Widths 1, 2, 4 and 8 divide a
byte and pack densely, first element in the lowest bits, which is ONNX's own order for INT2/INT4.
Three bits are stored as two planes, one of 2 bits and one of 1 bit, so that a graph can unpack
them with standard operators.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]


def planes_of(bits: int) -> tuple[int, ...]:
    """Widths of the dense planes that hold a ``bits``-bit index, lowest bits first."""
    planes = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}
    if bits not in planes:
        raise ValueError(f"no packing for {bits}-bit codes; widths are {sorted(planes)}")
    return planes[bits]


def pack_plane(index: U8, width: int) -> U8:
    """Pack values ``0 .. 2**width - 1`` (any shape, C order) densely; width divides 8."""
    per_byte = 8 // width
    flat = index.reshape(-1)
    padded = np.zeros(-(-flat.size // per_byte) * per_byte, dtype=np.uint8)
    padded[: flat.size] = flat
    lanes = padded.reshape(-1, per_byte)
    packed = np.zeros(lanes.shape[0], dtype=np.uint8)
    for lane in range(per_byte):
        packed |= lanes[:, lane] << np.uint8(lane * width)
    return packed


def unpack_plane(packed: U8, width: int, count: int) -> U8:
    """Inverse of :func:`pack_plane`: the first ``count`` values, flat."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    lanes = (packed.reshape(-1, 1) >> shifts) & np.uint8((1 << width) - 1)
    return lanes.reshape(-1)[:count]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that :func:`pack_index` yields for ``count`` codes of ``bits`` bits.

    >>> packed_bytes(10, bits=2), packed_bytes(10, bits=3)
    (3, 5)
    """
    return sum(-(-count * width // 8) for width in planes_of(bits))


def pack_index(index: U8, bits: int) -> U8:
    """Pack indices ``0 .. 2**bits - 1`` into bytes, plane after plane (see :func:`planes_of`)."""
    planes, shift = [], 0
    for width in planes_of(bits):
        planes.append(pack_plane((index >> np.uint8(shift)) & np.uint8((1 << width) - 1), width))
        shift += width
    return np.concatenate(planes)


def unpack_index(packed: U8, bits: int, count: int) -> U8:
    """Inverse of :func:`pack_index`: uint8 ``[count]``.

    Raises:
        ValueError: ``packed`` has not exactly the bytes that ``count`` codes need.
    """
    if packed.size != packed_bytes(count, bits):
        raise ValueError(
            f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, "
            f"found {packed.size}"
        )
    index, shift, start = np.zeros(count, dtype=np.uint8), 0, 0
    for width in planes_of(bits):
        size = -(-count * width // 8)
        plane = unpack_plane(packed[start : start + size], width, count)
        index |= plane << np.uint8(shift)
        start, shift = start + size, shift + width
    return index
