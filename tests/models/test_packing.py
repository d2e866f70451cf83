"""Codes packed at their own width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.models.packing import (
    pack_index,
    pack_plane,
    packed_bytes,
    planes_of,
    unpack_index,
    unpack_plane,
)

WIDTHS = (1, 2, 3, 4, 8)


@given(st.data(), st.sampled_from(WIDTHS))
def test_round_trip(data: st.DataObject, bits: int) -> None:
    """Every list of indices comes back, whether or not it fills its last byte."""
    index = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), dtype=np.uint8)
    packed = pack_index(index, bits)
    assert packed.dtype == np.uint8
    assert packed.size == packed_bytes(index.size, bits)
    back = unpack_index(packed, bits, index.size)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, index)


@pytest.mark.parametrize(
    ("bits", "index", "want"),
    [
        (1, [1, 0, 0, 0, 0, 0, 0, 0, 1], [0b00000001, 0b00000001]),
        (2, [3, 0, 1, 2, 1], [0b10_01_00_11, 0b01]),
        (4, [0x5, 0xA, 0xC], [0xA5, 0x0C]),
        (8, [7, 200], [7, 200]),
        # Two planes: the low two bits of all five, then the high bit of all five.
        (3, [7, 4, 1, 2, 5], [0b10_01_00_11, 0b01, 0b10011]),
    ],
)
def test_first_element_is_in_the_lowest_bits(bits: int, index: list[int], want: list[int]) -> None:
    """ONNX's own order for INT2 and INT4; three bits are a plane of two and a plane of one."""
    assert pack_index(np.array(index, dtype=np.uint8), bits).tolist() == want


@pytest.mark.parametrize(
    ("count", "bits", "size"),
    [(0, 2, 0), (1, 2, 1), (4, 2, 1), (5, 2, 2), (8, 3, 3), (9, 3, 5), (3, 4, 2), (7, 8, 7)],
)
def test_size(count: int, bits: int, size: int) -> None:
    """Whole bytes per plane, no more."""
    assert packed_bytes(count, bits) == size
    assert pack_index(np.zeros(count, dtype=np.uint8), bits).size == size


def test_shape_does_not_matter() -> None:
    """Any shape packs in C order."""
    index = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 4
    np.testing.assert_array_equal(pack_index(index, 2), pack_index(index.reshape(-1), 2))


def test_a_plane_round_trips_on_its_own() -> None:
    """The exporter packs planes apart from each other."""
    values = np.array([2, 1, 3, 0, 2], dtype=np.uint8)
    np.testing.assert_array_equal(unpack_plane(pack_plane(values, 2), 2, 5), values)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_wrong_number_of_bytes_is_refused(size: int) -> None:
    """Five 2-bit codes take two bytes; the message says so and what it found."""
    with pytest.raises(ValueError, match=f"take 2 bytes, found {size}"):
        unpack_index(np.zeros(size, dtype=np.uint8), 2, 5)


@pytest.mark.parametrize("bits", [0, 5, 16, 32])
def test_an_unknown_width_is_refused(bits: int) -> None:
    """The message lists the widths that there are."""
    with pytest.raises(ValueError, match=r"widths are \[1, 2, 3, 4, 8\]"):
        planes_of(bits)
