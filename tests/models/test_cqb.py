"""CQB, the Connected Quantized Block (paper Eq. 6-9)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qmdd.models import CQB, Codes, ModelError
from qmdd.models.cqb import Shortcut
from qmdd.models.quantizers import MinMaxActivation

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
        for module in layer.modules():
            if isinstance(module, MinMaxActivation):  # zero within the range: a code of its own
                module.low.fill_(-0.9)
                module.high.fill_(1.2)
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


@pytest.mark.parametrize(("c_in", "c_out"), [(4, 6), (48, 64), (5, 9)])
def test_more_channels_out_must_be_a_multiple(c_in: int, c_out: int) -> None:
    """The message names both counts and the way out."""
    with pytest.raises(ModelError, match=rf"{c_in} channels do not divide {c_out};.*cqb=False"):
        Shortcut(c_in, c_out, 1)


#: MobileNetV2's projections whose ratio is not whole, small ones, and one without common divisor.
RATIOS = [(144, 32), (576, 160), (6, 4), (64, 48), (9, 6), (7, 3)]


@pytest.mark.parametrize(("c_in", "c_out"), [*RATIOS, (192, 64), (12, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_fewer_channels_out_at_any_ratio(c_in: int, c_out: int, stride: int) -> None:
    """Every channel repeated ``out/g`` times, then means of ``in/g`` neighbours, ``g`` their gcd.

    Where the ratio is whole these are Eq. 6-7's plain groups.
    """
    shortcut = Shortcut(c_in, c_out, stride)
    assert shortcut.kind == "down"
    x = _input(c_in, 5)
    common = math.gcd(c_in, c_out)
    repeated = _pooled(x.numpy(), stride).repeat(c_out // common, axis=1)
    group = c_in // common
    count, _, height, width = repeated.shape
    want = repeated.reshape(count, c_out, group, height, width).mean(axis=2)
    have = shortcut(x).numpy()
    # float32 sums of up to 18 values below 4: 18 units of 2^-23 at most of sums below 2^6.
    np.testing.assert_allclose(have, want, rtol=0, atol=18 * 2.0**-23 * 4)


@pytest.mark.parametrize(("c_in", "c_out"), [*RATIOS, (192, 64)])
def test_each_input_channel_weighs_the_same(c_in: int, c_out: int) -> None:
    """Summed over all outputs, every input counts ``out/in``; each output is a mean of inputs.

    The weights are read off unit vectors; they come in multiples of ``1/(in/g)``.
    """
    shortcut = Shortcut(c_in, c_out, 1)
    weights = shortcut(torch.eye(c_in).reshape(c_in, c_in, 1, 1)).reshape(c_in, c_out).double()
    parts = weights * (c_in // math.gcd(c_in, c_out))
    assert float((parts - parts.round()).abs().max()) <= 1e-6  # 1/(in/g) is rounded to float32
    whole = parts.round()
    assert set(whole.sum(dim=1).tolist()) == {c_out / math.gcd(c_in, c_out)}
    assert set(whole.sum(dim=0).tolist()) == {c_in / math.gcd(c_in, c_out)}
    # Neighbours: what an output takes from is one unbroken run of channels, in rising order.
    taken = [np.flatnonzero(column) for column in whole.T.numpy()]
    assert all(np.array_equal(t, np.arange(t[0], t[-1] + 1)) for t in taken)
    assert taken[0][0] == 0
    assert taken[-1][-1] == c_in - 1
    assert all(before[-1] <= after[0] for before, after in itertools.pairwise(taken))


@pytest.mark.parametrize("group", [2, 3, 4])
def test_a_whole_ratio_is_the_plain_group_mean_to_the_bit(group: int) -> None:
    """Members are added in their order and multiplied by ``1/s``: the exporter writes the same."""
    x = _input(5 * group, 6)
    total = x[:, 0::group]
    for member in range(1, group):
        total = total + x[:, member::group]
    assert torch.equal(Shortcut(5 * group, 5, 1)(x), total * (1.0 / group))


#: Channels in and out, and groups: equal, up, down, down by no whole ratio, depthwise, grouped up.
SHAPES = [(8, 8, 1), (4, 8, 1), (8, 4, 1), (6, 4, 1), (8, 8, 8), (4, 8, 2)]


@pytest.mark.parametrize(("c_in", "c_out", "groups"), SHAPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_training_mixes_by_alpha(c_in: int, c_out: int, groups: int, stride: int) -> None:
    """Eq. 6-9: ``alpha * Q(Conv(x)) + (1 - alpha) * shortcut(x)``."""
    layer = _cqb(c_in, c_out, stride, groups=groups).train()
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


@pytest.mark.parametrize(("c_in", "c_out", "groups"), SHAPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("activation", ["n2uq", "minmax"])
def test_evaluation_is_the_convolution_of_codes_and_the_weighted_shortcut(
    c_in: int, c_out: int, groups: int, stride: int, bits: int, activation: str
) -> None:
    """``acc*m + b`` with alpha folded in, plus ``shortcut * (1 - alpha)``; 1e-5 of float64's.

    The codes are the layer's own; everything after them is recomputed in float64.
    """
    layer = _settled(_cqb(c_in, c_out, stride, bits, groups=groups, activation=activation))
    x = _input(c_in, 7)
    with torch.no_grad():
        activated = layer.act(x)
        have = layer(x)
        assert torch.equal(layer.combine(x, activated), have)
        frozen = layer.conv.frozen()
    assert isinstance(activated, Codes)
    assert torch.equal(activated.codes, activated.codes.round())
    assert float(activated.codes.max()) <= 2**bits - 1
    assert layer.alpha is not None
    assert layer.shortcut is not None
    values = activated.centred().double() * activated.step.detach().double()
    weight = frozen.codes.double() * frozen.scale.double().reshape(-1, 1, 1, 1)
    sums = torch.nn.functional.conv2d(values, weight, stride=stride, padding=1, groups=groups)
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
        want = layer.conv.evaluate(layer.act.codes(x))
        layer.train()
        trained = layer(x)
    assert torch.equal(have, want)
    assert trained.shape == have.shape


def test_the_full_precision_twin_is_the_same_sum_without_quantizers() -> None:
    """bits=32, evaluation: float convolution of the chain's values, alpha, shortcut."""
    layer = _settled(_cqb(6, 4, bits=32))
    assert layer.act.quantizer is None
    assert layer.conv.quantizer is None
    assert layer.alpha is not None
    assert layer.shortcut is not None
    x = _input(6)
    with torch.no_grad():
        values = layer.act.before_quantizer(x)
        plain = torch.nn.functional.conv2d(values, layer.conv.latent(), padding=1)
        want = layer.alpha * layer.conv.bn(plain) + (1 - layer.alpha) * layer.shortcut(x)
        have = layer(x)
    # alpha and 1 - alpha are rounded in another order: two units of 2^-23 of values below 8.
    torch.testing.assert_close(have, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("nonlinearity", ["rprelu", "relu", "none"])
def test_the_nonlinearity_is_the_chains(nonlinearity: str) -> None:
    """Handed on by name."""
    assert _cqb(4, 4, nonlinearity=nonlinearity).act.nonlinearity == nonlinearity
