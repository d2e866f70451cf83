"""CQB, the Connected Quantized Block (paper Eq. 6-9)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qmdd.models import ModelError
from qmdd.models.cqb import CQB, ActivationChain, Shortcut

F32 = npt.NDArray[np.float32]


def _pooled(x: F32, stride: int) -> npt.NDArray[np.float64]:
    """Average over windows of ``stride``; a last row or column of its own where the side is odd."""
    count, channels, height, width = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    out = np.empty((count, channels, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            out[:, :, i, j] = window.astype(np.float64).mean(axis=(2, 3))
    return out


def _cqb(c_in: int, c_out: int, stride: int = 1, bits: int = 2, **options: object) -> CQB:
    torch.manual_seed(c_in + c_out + stride + bits)
    settings: dict[str, object] = {
        "activation": "n2uq",
        "weight": "n2uq",
        "slr": True,
        **options,
    }
    return CQB(c_in, c_out, 3, stride, bits=bits, **settings)  # type: ignore[arg-type]


def _settled(layer: CQB, seed: int = 0) -> CQB:
    """Parameters and statistics off their initial values, evaluation mode."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for tensor, low, high in (
            (layer.act.shift_in.bias, -0.3, 0.3),
            (layer.act.prelu.weight, 0.05, 0.4),
            (layer.act.shift_out.bias, -0.2, 0.4),
            (layer.conv.bn.weight, 0.5, 1.5),
            (layer.conv.bn.bias, -0.5, 0.5),
            (layer.conv.bn.running_mean, -1.0, 1.0),
            (layer.conv.bn.running_var, 0.5, 2.0),
        ):
            assert tensor is not None
            tensor.copy_(torch.from_numpy(rng.uniform(low, high, tensor.shape)))
        if layer.alpha is not None:
            layer.alpha.fill_(0.37)
    return layer.eval()


def _input(channels: int, side: int = 6, seed: int = 1) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(0, 1, (2, channels, side, side + 1)).astype(np.float32))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
def test_fewer_channels_out_is_a_mean_over_neighbouring_channels(stride: int, side: int) -> None:
    """Eq. 6-7: output channel ``c`` is the mean of inputs ``c*s .. c*s + s-1``."""
    shortcut = Shortcut(12, 3, stride)
    assert shortcut.kind == "down"
    x = _input(12, side)
    pooled = _pooled(x.numpy(), stride)
    want = np.stack([pooled[:, 4 * c : 4 * c + 4].mean(axis=1) for c in range(3)], axis=1)
    # float32 sums of four (and of four pooled ones): two units of 2^-23 of values below 4.
    np.testing.assert_allclose(shortcut(x).numpy(), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
def test_more_channels_out_is_the_input_beside_itself(stride: int, side: int) -> None:
    """Eq. 8: the whole input, ``s`` times one after the other (not channel by channel)."""
    shortcut = Shortcut(4, 12, stride)
    assert shortcut.kind == "up"
    x = _input(4, side)
    pooled = _pooled(x.numpy(), stride)
    want = np.concatenate([pooled, pooled, pooled], axis=1)
    np.testing.assert_allclose(shortcut(x).numpy(), want, rtol=0, atol=1e-6)
    if stride == 1:
        assert torch.equal(shortcut(x), torch.cat([x, x, x], dim=1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
def test_equal_channels_is_average_pooling_with_window_stride(stride: int, side: int) -> None:
    """Eq. 9; window 1 is the identity, an odd side's last row is pooled alone."""
    shortcut = Shortcut(5, 5, stride)
    assert shortcut.kind == "equal"
    x = _input(5, side)
    np.testing.assert_allclose(shortcut(x).numpy(), _pooled(x.numpy(), stride), rtol=0, atol=1e-6)
    if stride == 1:
        assert torch.equal(shortcut(x), x)


@pytest.mark.parametrize(("c_in", "c_out"), [(6, 4), (4, 6), (64, 48)])
def test_channel_counts_must_divide(c_in: int, c_out: int) -> None:
    """The message names both counts and the way out."""
    with pytest.raises(ModelError, match=f"got {c_in} -> {c_out}; .*cqb=False"):
        Shortcut(c_in, c_out, 1)


@pytest.mark.parametrize(("c_in", "c_out"), [(8, 8), (4, 8), (8, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_training_mixes_by_alpha(c_in: int, c_out: int, stride: int) -> None:
    """Eq. 6-9: ``alpha * Q(Conv(x)) + (1 - alpha) * shortcut(x)``."""
    layer = _cqb(c_in, c_out, stride).train()
    assert layer.alpha is not None
    assert layer.shortcut is not None
    x = _input(c_in)
    with torch.no_grad():
        outs = {}
        for alpha in (0.0, 1.0, 0.3):
            layer.alpha.fill_(alpha)
            outs[alpha] = layer(x)
        assert torch.equal(outs[0.0], layer.shortcut(x))
        assert torch.equal(outs[1.0], layer.conv(layer.act(x)))
    want = outs[1.0] * 0.3 + outs[0.0] * 0.7
    torch.testing.assert_close(outs[0.3], want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("c_in", "c_out"), [(8, 8), (4, 8), (8, 4)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bits", [2, 8])
def test_evaluation_is_the_convolution_of_codes_and_the_weighted_shortcut(
    c_in: int, c_out: int, stride: int, bits: int
) -> None:
    """``acc*m + b`` with alpha folded in, plus ``shortcut * (1 - alpha)``; 1e-5 of float64's.

    The codes are the layer's own; everything after them is recomputed in float64 numpy.
    """
    layer = _settled(_cqb(c_in, c_out, stride, bits))
    x = _input(c_in, 7)
    with torch.no_grad():
        codes = layer.activate(x)
        have = layer(x)
        frozen = layer.conv.frozen()
    assert torch.equal(codes, codes.round())
    assert float(codes.max()) <= 2**bits - 1
    assert layer.alpha is not None
    assert layer.shortcut is not None
    values = codes.double() * layer.step.detach().double()
    weight = frozen.codes.double() * frozen.scale.double().reshape(-1, 1, 1, 1)
    sums = torch.nn.functional.conv2d(values, weight, stride=stride, padding=1)
    normal = layer.conv.bn.double()
    with torch.no_grad():
        main = normal(sums)
    alpha = float(layer.alpha.detach())
    want = alpha * main + (1 - alpha) * layer.shortcut(x.double())
    assert have.shape == want.shape
    assert float((have - want).abs().max()) <= 1e-5 * float(want.abs().max())


def test_without_connection_only_the_convolution_is_left() -> None:
    """``cqb=False``: no alpha, no shortcut, any channel counts."""
    layer = _settled(_cqb(6, 4, connected=False))
    assert layer.alpha is None
    assert layer.shortcut is None
    x = _input(6)
    with torch.no_grad():
        have = layer(x)
        want = layer.conv.evaluate(layer.act.codes(x), layer.step)
        layer.train()
        trained = layer(x)
    assert torch.equal(have, want)
    assert trained.shape == have.shape


def test_activation_chain_is_shift_prelu_shift() -> None:
    """N2UQ's and ReActNet's order before the quantizer."""
    layer = _settled(_cqb(3, 3))
    chain = layer.act
    x = _input(3)
    shape = (1, -1, 1, 1)
    wide = x.double().numpy() + chain.shift_in.bias.detach().double().numpy().reshape(shape)
    slope = chain.prelu.weight.detach().double().numpy().reshape(shape)
    wide = np.where(wide > 0, wide, wide * slope)
    wide = wide + chain.shift_out.bias.detach().double().numpy().reshape(shape)
    with torch.no_grad():
        have = chain.before_quantizer(x)
    np.testing.assert_allclose(have.numpy(), wide, rtol=0, atol=1e-6)
    assert chain.quantizer is not None
    assert torch.equal(chain.codes(x), chain.quantizer.codes(have))


def test_the_twin_has_neither_codes_nor_a_step() -> None:
    """bits=32: plain values in both modes, and an error for whoever asks for codes."""
    chain = ActivationChain(4, bits=32, kind="n2uq", slr=True)
    x = _input(4)
    assert torch.equal(chain(x), chain.before_quantizer(x))
    with pytest.raises(ModelError, match="no codes"):
        chain.codes(x)
    layer = _cqb(4, 4, bits=32)
    with pytest.raises(ModelError, match="no step"):
        _ = layer.step
