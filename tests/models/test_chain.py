"""Activation chains: shift, PReLU, shift, quantizer; codes in evaluation, values in training."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.models import CQB, ActivationChain, Codes, ModelError, quantised_chains
from qmdd.models.chain import NONLINEARITIES
from qmdd.models.quantizers import MinMaxActivation, SlrActivation

KINDS = [*itertools.product(("minmax", "lsq", "n2uq"), (1, 2, 8)), ("binary", 1)]


def _input(channels: int, seed: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(0, 1, (2, channels, 6, 7)).astype(np.float32))


def _chain(channels: int = 3, bits: int = 2, **options: object) -> ActivationChain:
    """A chain off its initial values, its quantizer fitted to one batch, in evaluation."""
    chain = ActivationChain(channels, bits=bits, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(channels)
    with torch.no_grad():
        if chain.nonlinearity == "rprelu":
            for tensor, low, high in (
                (chain.shift_in.bias, -0.3, 0.3),
                (chain.prelu.weight, 0.05, 0.4),
                (chain.shift_out.bias, -0.2, 0.4),
            ):
                tensor.copy_(torch.from_numpy(rng.uniform(low, high, tensor.shape)))
        chain(_input(channels, 2))
    return chain.eval()


def _reference(chain: ActivationChain, x: Tensor) -> Tensor:
    """Shift, PReLU, shift; or ReLU; or nothing: in float64 numpy."""
    wide = x.double().numpy()
    if chain.nonlinearity == "relu":
        wide = np.maximum(wide, 0)
    elif chain.nonlinearity == "rprelu":
        shape = (1, -1, 1, 1)
        wide = wide + chain.shift_in.bias.detach().double().numpy().reshape(shape)
        slope = chain.prelu.weight.detach().double().numpy().reshape(shape)
        wide = np.where(wide > 0, wide, wide * slope)
        wide = wide + chain.shift_out.bias.detach().double().numpy().reshape(shape)
    return torch.from_numpy(wide)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_what_stands_before_the_quantizer(nonlinearity: str) -> None:
    """N2UQ's and ReActNet's order (shift, PReLU, shift), ReLU, or nothing."""
    chain = _chain(nonlinearity=nonlinearity)
    x = _input(3)
    with torch.no_grad():
        have = chain.before_quantizer(x)
        np.testing.assert_allclose(have.numpy(), _reference(chain, x).numpy(), rtol=0, atol=1e-6)
        assert chain.quantizer is not None
        assert torch.equal(chain.codes(x).codes, chain.quantizer.codes(have))
    learned = {name for name, _ in chain.named_parameters() if "quantizer" not in name}
    own = {"shift_in.bias", "prelu.weight", "shift_out.bias"}
    assert learned == (own if nonlinearity == "rprelu" else set())


@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize("slr", [False, True])
def test_evaluation_gives_codes_and_what_they_stand_for(kind: str, bits: int, slr: bool) -> None:
    """Integers ``0 .. 2^k - 1``, the quantizer's step and its code of zero, all float32."""
    chain = _chain(bits=bits, kind=kind, slr=slr)
    assert isinstance(chain.quantizer, SlrActivation) is slr
    with torch.no_grad():
        out = chain(_input(3))
    assert isinstance(out, Codes)
    assert chain.quantizer is not None
    assert out.codes.dtype == out.step.dtype == out.zero.dtype == torch.float32
    assert out.codes.shape == (2, 3, 6, 7)
    assert set(out.codes.unique().tolist()) <= set(range(2**bits))
    assert out.codes.unique().numel() >= 2
    assert torch.equal(out.step, chain.quantizer.step)
    assert torch.equal(out.zero, chain.quantizer.zero)
    assert torch.equal(out.centred(), out.codes - out.zero)


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_training_gives_values_with_a_gradient(kind: str, bits: int) -> None:
    """Fake-quantised values, not codes: at most ``2^k`` of them, and the chain learns."""
    chain = _chain(bits=bits, kind=kind).train()
    x = _input(3).requires_grad_()
    out = chain(x)
    assert isinstance(out, Tensor)
    assert out.unique().numel() <= 2**bits
    (out * _input(3, 7)).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.any())
    assert bool(torch.isfinite(x.grad).all())


def test_zero_is_the_code_that_stands_for_it() -> None:
    """Through the chain too: where the quantizer reads 0, the centred code is 0."""
    chain = ActivationChain(1, bits=3, kind="minmax", slr=False, nonlinearity="none").eval()
    assert isinstance(chain.quantizer, MinMaxActivation)
    chain.quantizer.low.fill_(-1.0)
    chain.quantizer.high.fill_(2.5)
    out = chain(torch.tensor([-0.5, 0.0, 1.0]).reshape(1, 1, 1, 3))
    assert isinstance(out, Codes)
    assert out.codes.flatten().tolist() == [1.0, 2.0, 4.0]
    assert float(out.zero) == 2.0
    assert (out.centred() * out.step).flatten().tolist() == [-0.5, 0.0, 1.0]


@pytest.mark.parametrize("training", [True, False])
def test_the_twin_has_values_in_both_modes_and_no_codes(training: bool) -> None:
    """bits=32: plain values, and an error for whoever asks for codes."""
    chain = _chain(4, bits=32).train(training)
    assert chain.quantizer is None
    x = _input(4)
    out = chain(x)
    assert isinstance(out, Tensor)
    assert torch.equal(out, chain.before_quantizer(x))
    with pytest.raises(ModelError, match="no codes"):
        chain.codes(x)


def test_an_unknown_nonlinearity_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ModelError, match="nonlinearity='gelu' is not one of rprelu, relu, none"):
        ActivationChain(4, bits=2, nonlinearity="gelu")


def test_chains_are_found_by_their_layers_name() -> None:
    """A CQB's chain is called like the CQB, another one as it is; the twin's are left out."""
    network = nn.Sequential(
        CQB(4, 4, 3, bits=2),
        ActivationChain(4, bits=2),
        CQB(4, 4, 3, bits=32),
        nn.ModuleDict({"action": ActivationChain(4, bits=1, kind="binary")}),
    )
    found = quantised_chains(network)
    assert [name for name, _ in found] == ["0", "1", "3.action"]
    cqb = network[0]
    assert isinstance(cqb, CQB)
    assert found[0][1] is cqb.act
