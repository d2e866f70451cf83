"""NPR (paper Eq. 1-2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qmdd.models.npr import crop_to_even, npr, pixels


def _image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (2, 3, height, width), dtype=np.uint8))


def test_residual_is_each_pixel_minus_the_top_left_one_of_its_cell() -> None:
    """Eq. 1-2 as a plain loop: ``out[i, j] = x[i, j] - x[2*(i//2), 2*(j//2)]``."""
    x = _image(6, 8).numpy().astype(np.float32)
    want = np.empty_like(x)
    for i in range(6):
        for j in range(8):
            want[..., i, j] = x[..., i, j] - x[..., i // 2 * 2, j // 2 * 2]
    np.testing.assert_array_equal(npr(torch.from_numpy(x)).numpy(), want)


def test_residual_of_pixels_is_integers() -> None:
    """Integers 0..255 give integers -255..255, corners 0: float32 holds them all exactly."""
    extremes = torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8)
    assert npr(pixels(extremes)).tolist() == [[[[0.0, 255.0], [255.0, 0.0]]]]
    image = _image(16, 16)
    out = npr(pixels(image))
    assert out.dtype == torch.float32
    assert torch.equal(out, out.round())
    assert not out[..., ::2, ::2].any()
    wide = image.to(torch.int64)
    corner = wide[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(out.to(torch.int64), wide - corner)


def test_a_mean_per_channel_cancels_exactly() -> None:
    """``npr(x - mean) == npr(x)`` to the bit: why only the standard deviation is ever folded in.

    The means are quarters, so that the subtraction itself is exact in float32.
    """
    x = pixels(_image(10, 10))
    mean = torch.tensor([123.75, -3.25, 1000.5]).reshape(1, 3, 1, 1)
    assert torch.equal(npr(x - mean), npr(x))


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 6), (6, 7), (7, 9), (3, 3)])
def test_an_odd_side_loses_its_last_row_or_column(height: int, width: int) -> None:
    """``crop_to_even`` keeps the top left, so cells of 2x2 stay where they were."""
    x = _image(height, width)
    out = crop_to_even(x)
    assert torch.equal(out, x[:, :, : height // 2 * 2, : width // 2 * 2])


def test_pixels_keeps_values_and_makes_float32() -> None:
    """uint8, int64 and float64 pixels all become the same float32."""
    x = _image(4, 4)
    for dtype in (torch.uint8, torch.int64, torch.float64):
        got = pixels(x.to(dtype))
        assert got.dtype == torch.float32
        assert torch.equal(got, x.float())
