"""Convolutions on codes: exact sums, and the ``acc * m + b`` that evaluation is defined as."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from qmdd.models import ModelError
from qmdd.models.conv import EXACT_LIMIT, QuantConv2d, fold_batch_norm

I64 = npt.NDArray[np.int64]


def integer_convolution(codes: I64, weight: I64, stride: int, padding: int) -> I64:
    """``[N, C, H, W]`` by ``[O, C, k, k]`` in int64, shifted product by shifted product."""
    kernel = weight.shape[-1]
    edge = (padding, padding)
    padded = np.pad(codes, ((0, 0), (0, 0), edge, edge))
    height = (padded.shape[2] - kernel) // stride + 1
    width = (padded.shape[3] - kernel) // stride + 1
    total = np.zeros((codes.shape[0], weight.shape[0], height, width), dtype=np.int64)
    for i in range(kernel):
        for j in range(kernel):
            rows = slice(i, i + stride * (height - 1) + 1, stride)
            columns = slice(j, j + stride * (width - 1) + 1, stride)
            patch = padded[:, :, rows, columns]
            total += np.einsum("nchw,oc->nohw", patch, weight[:, :, i, j])
    return total


def _conv(bits: int, kind: str = "n2uq", **shape: int) -> QuantConv2d:
    torch.manual_seed(bits)
    return QuantConv2d(
        shape.get("c_in", 16),
        shape.get("c_out", 8),
        shape.get("kernel", 3),
        shape.get("stride", 1),
        shape.get("padding", 1),
        bits=bits,
        kind=kind,
        top=2**bits - 1,
    )


def _randomise_norm(conv: QuantConv2d, rng: np.random.Generator) -> None:
    with torch.no_grad():
        for tensor, low, high in (
            (conv.bn.weight, -1.5, 2.0),
            (conv.bn.bias, -1.0, 1.0),
            (conv.bn.running_mean, -2.0, 2.0),
            (conv.bn.running_var, 0.01, 3.0),
        ):
            assert tensor is not None
            tensor.copy_(torch.from_numpy(rng.uniform(low, high, tensor.shape)))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2), (7, 2)])
def test_sums_are_exact(bits: int, kernel: int, stride: int) -> None:
    """DESIGN 3.1: every sum equals int64's, for odd and even sides."""
    rng = np.random.default_rng([bits, kernel, stride])
    conv = _conv(bits, kernel=kernel, stride=stride, padding=kernel // 2)
    frozen = conv.frozen()
    codes = rng.integers(0, 2**bits, (2, 16, 9, 12))
    have = conv.accumulate(torch.from_numpy(codes).float(), frozen.codes)
    want = integer_convolution(codes, frozen.codes.numpy().astype(np.int64), stride, kernel // 2)
    assert have.dtype == torch.float32
    assert np.abs(want).max() < EXACT_LIMIT
    np.testing.assert_array_equal(have.numpy().astype(np.int64), want)


def test_sums_beyond_the_exact_limit_are_rounded_once() -> None:
    """At 8 bits ``255 * 255 * 1152`` passes 2^24: summed exactly, then one rounding to float32.

    Half of the outputs are built to cancel: their partial sums pass 2^24 and their result is
    small, which a sum in float32 misses (checked, so that this test stays sharp).
    """
    rng = np.random.default_rng(1)
    conv = _conv(8, c_in=128)
    codes = rng.integers(250, 256, (1, 128, 6, 6))
    weight = rng.integers(200, 256, (8, 128, 3, 3))
    weight[4:, 64:] = -weight[4:, :64]
    given = torch.from_numpy(codes).float()
    have = conv.accumulate(given, torch.from_numpy(weight.astype(np.int16))).numpy()
    want = integer_convolution(codes, weight, 1, 1)
    assert want[:, :4].max() > EXACT_LIMIT
    assert np.abs(want[:, 4:]).max() < EXACT_LIMIT
    np.testing.assert_array_equal(have, want.astype(np.float32))
    naive = torch.nn.functional.conv2d(given, torch.from_numpy(weight).float(), padding=1)
    assert np.any(naive.numpy() != want.astype(np.float32))


def test_batch_norm_folds_in_float64_and_is_rounded_once() -> None:
    """``m = gain*gamma*step*scale/sqrt(var+eps)``, ``b = gain*(beta - gamma*mean/sqrt(var+eps))``.

    Against numpy's widest float: the same float32 in every channel.
    """
    rng = np.random.default_rng(2)
    conv = _conv(2, c_out=64)
    _randomise_norm(conv, rng)
    bn = conv.bn
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = torch.from_numpy(rng.uniform(1e-3, 1e-1, 64).astype(np.float32))
    step, gain = torch.tensor(0.6173), torch.tensor(0.4321)

    def wide(tensor: Tensor) -> npt.NDArray[np.longdouble]:
        return tensor.detach().numpy().astype(np.longdouble)

    root = np.sqrt(wide(bn.running_var) + np.longdouble(bn.eps))
    for given, factor in ((gain, wide(gain)), (None, np.longdouble(1))):
        m, b = fold_batch_norm(bn, scale, step, given)
        assert m.dtype == b.dtype == torch.float32
        want_m = factor * wide(bn.weight) * wide(step) * wide(scale) / root
        want_b = factor * (wide(bn.bias) - wide(bn.weight) * wide(bn.running_mean) / root)
        np.testing.assert_array_equal(m.detach().numpy(), want_m.astype(np.float32))
        np.testing.assert_array_equal(b.detach().numpy(), want_b.astype(np.float32))


@pytest.mark.parametrize("bits", [2, 8])
def test_evaluation_is_acc_times_m_plus_b(bits: int) -> None:
    """Two float32 roundings after an exact sum, bit for bit in numpy."""
    rng = np.random.default_rng(3)
    conv = _conv(bits)
    _randomise_norm(conv, rng)
    step, gain = torch.tensor(0.0371), torch.tensor(0.83)
    codes = rng.integers(0, 2**bits, (2, 16, 7, 7))
    with torch.no_grad():
        have = conv.evaluate(torch.from_numpy(codes).float(), step, gain)
        frozen = conv.frozen()
        m, b = conv.affine(frozen, step, gain)
    acc = integer_convolution(codes, frozen.codes.numpy().astype(np.int64), 1, 1)
    shape = (1, -1, 1, 1)
    want = acc.astype(np.float32) * m.numpy().reshape(shape) + b.numpy().reshape(shape)
    np.testing.assert_array_equal(have.numpy(), want)


def test_training_is_batch_norm_of_the_fake_quantised_convolution() -> None:
    """Values by values: ``BN(conv(values, Q(weight)))`` with the batch's own statistics."""
    conv = _conv(2).train()
    values = torch.randn(4, 16, 6, 6)
    with torch.no_grad():
        have = conv(values)
        quantised = conv.quantizer(conv.latent())  # type: ignore[misc]
        plain = torch.nn.functional.conv2d(values, quantised, padding=1)
        mean = plain.mean(dim=(0, 2, 3), keepdim=True)
        variance = plain.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
        want = (plain - mean) / (variance + 1e-5).sqrt()
    # Batch statistics are float32 sums in another order: a few units of 2^-23 of the values (< 8).
    torch.testing.assert_close(have, want, rtol=0, atol=5e-6)


def test_freezing_leaves_codes_and_scale_and_ends_training() -> None:
    """Afterwards there is no latent weight; what evaluation computes with stays the same."""
    conv = _conv(3)
    before = conv.frozen()
    conv.freeze_weight()
    conv.freeze_weight()  # a second time changes nothing
    after = conv.frozen()
    assert torch.equal(before.codes, after.codes)
    assert torch.equal(before.scale, after.scale)
    assert not any("weight" in name and "bn" not in name for name, _ in conv.named_parameters())
    with pytest.raises(ModelError, match="cannot be trained"):
        conv(torch.zeros(1, 16, 4, 4))


def test_a_full_precision_convolution_has_no_codes() -> None:
    """The twin's convolution says so instead of inventing some."""
    with pytest.raises(ModelError, match="full-precision"):
        QuantConv2d(4, 4, 3, bits=32, kind="n2uq", top=1).frozen()


def test_batch_norm_without_statistics_cannot_be_folded() -> None:
    """``track_running_stats=False`` leaves nothing to fold."""
    bn = torch.nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(ModelError, match="running statistics"):
        fold_batch_norm(bn, torch.ones(4), torch.tensor(1.0), None)
