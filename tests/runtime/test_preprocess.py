"""Crops: the sizes promised, real pixels, cells of NPR kept whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmdd.runtime.errors import ImageError
from qmdd.runtime.preprocess import check_size, prepare

U8 = npt.NDArray[np.uint8]
SIDE = st.integers(1, 70)


def _coordinates(height: int, width: int) -> U8:
    """An image whose pixels say where they stand: row, column, 7."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=2).astype(np.uint8)


@given(SIDE, SIDE, st.integers(1, 8), st.integers(1, 4), st.integers(0, 40))
@example(32, 33, 1, 2, 30)
@example(8, 8, 8, 1, 0)
def test_crops_are_even_central_and_in_steps(
    height: int, width: int, multiple: int, least: int, more: int
) -> None:
    low = multiple * least
    high = low + more
    image = _coordinates(height, width)
    if min(height, width) < low:
        with pytest.raises(ImageError, match=f"{width}x{height}.*{low}x{low}"):
            prepare(image, min_side=low, multiple=multiple, max_side=high)
        return
    found = prepare(image, min_side=low, multiple=multiple, max_side=high)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    for axis, side in ((0, height), (1, width)):
        kept = found.shape[1 + axis]
        assert kept % multiple == 0
        assert low <= kept <= high
        assert min(side, high) - kept < multiple
        first = int(found[axis].min())
        assert first % 2 == 0
        assert abs(first - (side - min(side, high)) / 2) < 2
    top, left = int(found[0, 0, 0]), int(found[1, 0, 0])
    expected = image[top : top + found.shape[1], left : left + found.shape[2]]
    np.testing.assert_array_equal(found.transpose(1, 2, 0), expected)


@given(st.integers(32, 70), st.integers(32, 70))
def test_small_images_lose_only_an_odd_last_row_or_column(height: int, width: int) -> None:
    found = prepare(_coordinates(height, width), min_side=32, multiple=2, max_side=512)
    assert found.shape == (3, height // 2 * 2, width // 2 * 2)
    assert found[:, 0, 0].tolist() == [0, 0, 7]


@given(st.integers(32, 70), st.integers(32, 70))
def test_preparing_twice_changes_nothing(height: int, width: int) -> None:
    rule = {"min_side": 32, "multiple": 2, "max_side": 48}
    once = prepare(_coordinates(height, width), **rule)
    np.testing.assert_array_equal(prepare(once.transpose(1, 2, 0), **rule), once)


def test_the_input_is_not_shared() -> None:
    image = _coordinates(32, 32)
    prepare(image, min_side=32, multiple=2, max_side=512)[:] = 0
    np.testing.assert_array_equal(image, _coordinates(32, 32))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32, 3), dtype=np.float32),
        np.zeros((32, 32), dtype=np.uint8),
        np.zeros((32, 32, 4), dtype=np.uint8),
        np.zeros((3, 32, 32), dtype=np.uint8),
        np.zeros((1, 32, 32, 3), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(image: U8) -> None:
    with pytest.raises(ImageError, match=r"uint8 \[height, width, 3\], got"):
        prepare(image, min_side=2, multiple=2, max_side=512)


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 40, 3), (1, 40, 3)])
def test_images_without_a_cell_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ImageError, match="too small"):
        prepare(np.zeros(shape, dtype=np.uint8), min_side=1, multiple=2, max_side=512)


@given(height=SIDE, width=SIDE, low=st.integers(1, 40), multiple=st.integers(1, 4))
def test_sizes_are_refused_as_their_images_are(
    height: int, width: int, low: int, multiple: int
) -> None:
    """What the header of an image tells is what preparing it would tell, word for word."""
    rule = {"min_side": low * multiple, "multiple": multiple, "max_side": 64 * multiple}
    outcomes = []
    for attempt in (
        lambda: check_size(width, height, **rule),
        lambda: prepare(_coordinates(height, width), **rule),
    ):
        try:
            attempt()
            outcomes.append("fine")
        except ImageError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
