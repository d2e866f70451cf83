"""Convolutions on codes: exact sums, and the ``acc * m + b`` that evaluation is defined as."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from qmdd.models import Codes, ModelError
from qmdd.models.conv import EXACT_LIMIT, QuantConv2d, fold_batch_norm

I64 = npt.NDArray[np.int64]


def integer_convolution(codes: I64, weight: I64, stride: int, padding: int, groups: int = 1) -> I64:
    """``[N, C, H, W]`` by ``[O, C/groups, k, k]`` in int64, shifted product by shifted product."""
    if groups > 1:
        pairs = zip(np.split(codes, groups, axis=1), np.split(weight, groups), strict=True)
        return np.concatenate([integer_convolution(*p, stride, padding) for p in pairs], axis=1)
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
        groups=shape.get("groups", 1),
    )


def _codes(codes: I64, step: float = 1.0, zero: int = 0) -> Codes:
    return Codes(torch.from_numpy(codes).float(), torch.tensor(step), torch.tensor(float(zero)))


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


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2), (7, 2)])
@pytest.mark.parametrize(("c_out", "groups"), [(8, 1), (8, 4), (16, 16), (32, 16)])
def test_sums_are_exact(bits: int, kernel: int, stride: int, c_out: int, groups: int) -> None:
    """DESIGN 3.1: every sum equals int64's, for odd and even sides, whole, grouped, depthwise."""
    rng = np.random.default_rng([bits, kernel, stride])
    conv = _conv(
        bits, kernel=kernel, stride=stride, padding=kernel // 2, c_out=c_out, groups=groups
    )
    frozen = conv.frozen()
    assert frozen.codes.shape == conv.weight_shape == (c_out, 16 // groups, kernel, kernel)
    codes = rng.integers(0, 2**bits, (2, 16, 9, 12))
    have = conv.accumulate(torch.from_numpy(codes).float(), frozen.codes)
    weight = frozen.codes.numpy().astype(np.int64)
    want = integer_convolution(codes, weight, stride, kernel // 2, groups)
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


@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("groups", [1, 8])
def test_evaluation_is_acc_times_m_plus_b(bits: int, share: float, groups: int) -> None:
    """Two float32 roundings after an exact sum of ``code - zero``, bit for bit in numpy.

    Beyond the edge lies the value 0: there the sum takes ``code = zero``, wherever zero lies.
    """
    rng = np.random.default_rng(3)
    conv = _conv(bits, groups=groups).eval()
    _randomise_norm(conv, rng)
    gain, zero = torch.tensor(0.83), round(share * (2**bits - 1))
    codes = rng.integers(0, 2**bits, (2, 16, 7, 7))
    given = _codes(codes, 0.0371, zero)
    with torch.no_grad():
        have = conv(given, gain)
        assert torch.equal(conv.evaluate(given, gain), have)
        frozen = conv.frozen()
        m, b = conv.affine(frozen, given.step, gain)
    padded = np.pad(codes, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=zero)
    weight = frozen.codes.numpy().astype(np.int64)
    acc = integer_convolution(padded - zero, weight, 1, 0, groups)
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
    with torch.no_grad():
        assert torch.equal(conv(values, torch.tensor(0.25)), have * 0.25)


def test_grouped_training_is_convolution_of_each_group_apart() -> None:
    """Output channels of one group see the input channels of that group and no others."""
    conv = _conv(2, groups=4, padding=0).train()
    values = torch.randn(2, 16, 6, 6)
    with torch.no_grad():
        have = conv(values)
        quantised = conv.quantizer(conv.latent())  # type: ignore[misc]
        apart = [
            torch.nn.functional.conv2d(values[:, 4 * g : 4 * g + 4], quantised[2 * g : 2 * g + 2])
            for g in range(4)
        ]
        want = torch.nn.functional.batch_norm(torch.cat(apart, 1), None, None, training=True)
    # Batch statistics of float32 sums in another order: a few units of 2^-23 of the values (< 8).
    torch.testing.assert_close(have, want, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(16, 8, 3), (16, 6, 4), (6, 16, 4)])
def test_groups_must_divide_both_channel_counts(c_in: int, c_out: int, groups: int) -> None:
    """All three numbers are named."""
    says = f"{c_in} -> {c_out} channels cannot be convolved in {groups} groups"
    with pytest.raises(ModelError, match=says):
        _conv(2, c_in=c_in, c_out=c_out, groups=groups)


@pytest.mark.parametrize("frozen", [False, True])
def test_evaluation_takes_no_values(frozen: bool) -> None:
    """Without a quantizer before it there are no codes to sum: said, not computed in floats."""
    conv = _conv(2).eval()
    if frozen:
        conv.freeze_weight()
    with pytest.raises(ModelError, match=r"needs the codes of a quantizer.*ActivationChain"):
        conv(torch.zeros(1, 16, 4, 4))


@pytest.mark.parametrize("training", [True, False])
def test_the_twin_reads_values_in_both_modes(training: bool) -> None:
    """bits=32: batch-norm of the plain convolution, times the gain; codes mean nothing to it."""
    torch.manual_seed(0)
    conv = QuantConv2d(4, 6, 3, padding=1, bits=32).train(training)
    _randomise_norm(conv, np.random.default_rng(5))
    values, gain = torch.randn(2, 4, 5, 5), torch.tensor(0.5)
    with torch.no_grad():
        have = conv(values, gain)
        plain = torch.nn.functional.conv2d(values, conv.latent(), padding=1)
        assert torch.equal(have, conv.bn(plain) * gain)
        with pytest.raises(ModelError, match="no integer codes"):
            conv(Codes(values, gain, torch.tensor(0.0)))


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_codes_are_as_wide_as_the_weights_unless_said(bits: int) -> None:
    """``top`` bounds the sums: by default that of codes of ``bits`` bits."""
    assert _conv(bits).top == 2**bits - 1
    assert QuantConv2d(4, 4, 3, bits=bits, top=255).top == 255


def test_the_bound_on_sums_knows_how_wide_the_codes_are() -> None:
    """Two-bit weights on 8-bit codes can pass 2^24 although on 2-bit codes they could not.

    Half of the channels cancel the other half: a sum in float32 misses the small result (checked,
    so that this test stays sharp).
    """
    rng = np.random.default_rng(4)
    codes = rng.integers(200, 256, (1, 200_000, 3, 3))
    weight = np.full((1, 200_000, 3, 3), 3, dtype=np.int16)
    weight[:, 100_000:] = -3
    want = int((codes * weight.astype(np.int64)).sum())
    given = torch.from_numpy(codes).float()
    conv = QuantConv2d(200_000, 1, 3, bits=2, top=255)
    assert int(conv.accumulate(given, torch.from_numpy(weight))) == want
    naive = torch.nn.functional.conv2d(given, torch.from_numpy(weight).float())
    assert int(naive) != want


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
