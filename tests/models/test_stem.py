"""The stem: representation, integer convolution, normalisation in the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.models import ModelError, Stem
from qmdd.models.conv import EXACT_LIMIT
from qmdd.models.stem import IMAGENET_STD, PIXEL_MEAN, STEM_BITS

#: The stem of the ResNets and that of MobileNetV2.
KERNELS = [(7, True), (3, False)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)


def _images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def _stem(representation: str = "npr", **options: object) -> Stem:
    """Fresh weights, statistics of two batches, evaluation mode."""
    torch.manual_seed(0)
    stem = Stem(16, representation=representation, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for seed in (1, 2):
            stem(_images(4, 32, 32, seed))
    return stem.eval()


def _mean(images: Tensor) -> Tensor:
    return images.new_tensor(PIXEL_MEAN).reshape(1, 3, 1, 1)


@pytest.mark.parametrize("representation", ["npr", "rgb"])
@pytest.mark.parametrize(("kernel", "pool"), KERNELS)
def test_sums_are_exact(representation: str, kernel: int, pool: bool) -> None:
    """DESIGN 3.4: ``255 * sum|w|`` stays below 2^24 in every channel; what it sees is integers.

    In every channel the largest weight has the largest code, so the bound is met at its worst.
    """
    stem = _stem(representation, kernel=kernel, pool=pool)
    codes = stem.conv.frozen().codes.long()
    assert stem.conv.bits == STEM_BITS == 8
    assert codes.abs().amax(dim=(1, 2, 3)).tolist() == [127] * 16
    assert int(codes.abs().sum(dim=(1, 2, 3)).max()) * stem.conv.top < EXACT_LIMIT
    assert 3 * kernel**2 * 127 * 255 < EXACT_LIMIT  # whatever the weights
    for seed in range(3):
        residual = stem.residual(_images(1, 33, 40, seed))
        assert residual.shape == (1, 3, 32, 40)
        assert residual.dtype == torch.float32
        assert torch.equal(residual, residual.round())
        assert float(residual.abs().max()) <= stem.conv.top == 255


def test_rgb_is_the_pixel_minus_the_mean_pixel() -> None:
    """ImageNet's mean rounded to whole pixel values: at most half a pixel value off."""
    images = _images(2, 8, 8)
    have = _stem("rgb").residual(images)
    assert torch.equal(have, images.float() - _mean(images.float()))
    assert torch.equal(have.long(), images.long() - torch.tensor([124, 116, 104])[:, None, None])
    for mean, pixel in zip(IMAGENET_MEAN, PIXEL_MEAN, strict=True):
        assert abs(255 * mean - pixel) <= 0.5
        assert pixel == int(pixel)


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_rgb_pads_with_the_mean_pixel(quantized: bool, training: bool) -> None:
    """The sums at the edge are those of an image framed by mean pixels.

    The frame is two wide, so that the strided convolution's windows lie on the same pixels, and the
    outer ring of outputs is cut off. Quantised evaluation is integers, so it is equal to the bit.
    """
    stem = _stem("rgb", quantized=quantized, kernel=3, pool=False).train(training)
    stem.conv.bn.train(False)
    images = _images(2, 12, 10).float()
    framed = _mean(images).expand(2, 3, 16, 14).clone()
    framed[..., 2:14, 2:12] = images
    with torch.no_grad():
        have, want = stem(images), stem(framed)[..., 1:-1, 1:-1]
    if quantized and not training:
        assert torch.equal(have, want)
    # Float sums of 27 products in another order: a few units of 2^-23 of values below 16.
    torch.testing.assert_close(have, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 7])
def test_a_grey_image_of_the_mean_is_nothing(kernel: int) -> None:
    """rgb: mean pixels make sums of 0 everywhere, the edge included."""
    stem = _stem("rgb", kernel=kernel)
    residual = stem.residual(_mean(torch.zeros(1)).expand(1, 3, 16, 16))
    acc = stem.conv.accumulate(residual, stem.conv.frozen().codes)
    assert not acc.any()


@pytest.mark.parametrize("representation", ["npr", "rgb"])
@pytest.mark.parametrize(("kernel", "pool"), KERNELS)
def test_evaluation_is_integers_times_a_scale(representation: str, kernel: int, pool: bool) -> None:
    """Sums in int64, then ``acc * m + b``, ReLU, and pooling only where it is asked for."""
    stem = _stem(representation, kernel=kernel, pool=pool)
    images = _images(2, 30, 37)
    with torch.no_grad():
        have = stem(images)
        frozen = stem.conv.frozen()
        m, b = stem.conv.affine(frozen, stem.gain)
    half = kernel // 2
    padded = nn.functional.pad(stem.residual(images).long(), (half,) * 4).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    acc = np.einsum("nchwij,ocij->nohw", windows[:, :, ::2, ::2], frozen.codes.long().numpy())
    shape = (1, -1, 1, 1)
    want = acc.astype(np.float32) * m.numpy().reshape(shape) + b.numpy().reshape(shape)
    want = np.maximum(want, 0)
    if pool:
        ready = nn.functional.max_pool2d(torch.from_numpy(want), 3, stride=2, padding=1)
        want = ready.numpy()
    assert have.shape == (2, 16, *((8, 9) if pool else (15, 18)))
    np.testing.assert_array_equal(have.numpy(), want)


@pytest.mark.parametrize("representation", ["npr", "rgb"])
def test_training_and_evaluation_differ_by_rounding_alone(representation: str) -> None:
    """Training's floats through frozen statistics: 1e-5 of the largest."""
    stem = _stem(representation)
    images = _images(2, 32, 32)
    with torch.no_grad():
        have = stem(images)
        stem.train()
        stem.conv.bn.eval()
        trained = stem(images)
    assert float(have.max()) > 1
    assert float((have - trained).abs().max()) <= 1e-5 * float(have.abs().max())


@pytest.mark.parametrize("std", [IMAGENET_STD, (0.5, 0.25, 1.0)])
@pytest.mark.parametrize("representation", ["npr", "rgb"])
@pytest.mark.parametrize("kernel", [3, 7])
def test_normalisation_is_in_the_weights(
    std: tuple[float, float, float], representation: str, kernel: int
) -> None:
    """``(p/255 - mean)/std``, for NPR then ``* 2/3``: the twin's stem equals the plain formula.

    The weights are kaiming's over std; the formula is computed in float64. 1e-5 of the largest. The
    mean of ``rgb`` is the rounded one; NPR's cancels, so there ImageNet's own is taken.
    """
    torch.manual_seed(0)
    stem = Stem(64, quantized=False, representation=representation, kernel=kernel, std=std)
    torch.manual_seed(0)
    plain = torch.empty(64, 3, kernel, kernel)
    nn.init.kaiming_normal_(plain, mode="fan_out", nonlinearity="relu")
    images = _images(1, 32, 32).double()
    spread = images.new_tensor(std).reshape(1, 3, 1, 1)
    if representation == "npr":
        normal = (images / 255 - images.new_tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1)) / spread
        corner = normal[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
        seen = (normal - corner) * 2 / 3
    else:
        seen = (images - _mean(images)) / 255 / spread
    want = nn.functional.conv2d(seen, plain.double(), stride=2, padding=kernel // 2)
    have = nn.functional.conv2d(
        stem.residual(images) * stem.gain, stem.conv.latent(), stride=2, padding=kernel // 2
    )
    assert float((have - want).detach().abs().max()) <= 1e-5 * float(want.abs().max())


def test_npr_sees_no_uniform_change_of_brightness_and_rgb_does() -> None:
    """What all pixels share cancels in the residual, and is what rgb is about."""
    images = (_images(1, 16, 16).long() // 2).to(torch.uint8)
    npr, rgb = _stem("npr"), _stem("rgb")
    assert torch.equal(npr.residual(images), npr.residual(images + 100))
    assert torch.equal(rgb.residual(images) + 100, rgb.residual(images + 100))


def test_an_unknown_representation_is_refused() -> None:
    """With both that there are."""
    with pytest.raises(ModelError, match="representation='yuv' is neither npr nor rgb"):
        Stem(8, representation="yuv")
