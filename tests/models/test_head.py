"""The head: PReLU, mean, linear layer; one logit, to the bit, in evaluation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qmdd.models import Head

CHANNELS = 512


def _head(quantized: bool = True) -> Head:
    torch.manual_seed(0)
    head = Head(CHANNELS, quantized=quantized)
    with torch.no_grad():
        head.prelu.weight.uniform_(0.0, 0.5)
    return head.eval()


def _features(seed: int = 1) -> Tensor:
    """Large values that cancel, so that a float32 sum's last bits depend on its order."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (3, CHANNELS, 3, 5)) * np.exp(rng.uniform(-3, 3, (1, CHANNELS, 1, 1)))
    return torch.from_numpy(x.astype(np.float32))


def _shifted(tensor: Tensor, offset: int) -> Tensor:
    """The same numbers, ``offset`` floats off the allocator's alignment."""
    room = torch.empty(tensor.numel() + offset)
    out = room[offset:].view(tensor.shape)
    out.copy_(tensor)
    return out


@pytest.mark.parametrize("offset", [1, 2, 3, 5, 7])
def test_the_logit_does_not_depend_on_alignment(offset: int) -> None:
    """Weights and features at storage offsets of 4, 8, 12 ... bytes: the same float32.

    A checkpoint's tensors lie in the file's memory, aligned to 8 bytes; a library's vector loop
    takes the first few elements apart, and so sums in another order. (Three images are where a
    float32 head was seen to differ.)
    """
    head, x = _head(), _features()
    moved = copy.deepcopy(head)
    for name in ("weight", "bias"):
        setattr(moved.fc, name, nn.Parameter(_shifted(getattr(head.fc, name).detach(), offset)))
    moved.prelu.weight = nn.Parameter(_shifted(head.prelu.weight.detach(), offset))
    assert moved.fc.weight.data_ptr() % 64 == 4 * offset
    with torch.no_grad():
        want = head(x)
        assert torch.equal(moved(_shifted(x, offset)), want)
        for index in range(3):  # nor on the batch
            assert torch.equal(moved(x[index : index + 1]), want[index : index + 1])
        turned = x.contiguous(memory_format=torch.channels_last)
        assert torch.equal(head(turned), want)


def test_the_logit_is_float64s_rounded_once() -> None:
    """Against numpy's widest float: the same float32, which sums in float32 miss (checked)."""
    head, x = _head(), _features()
    slope = head.prelu.weight.detach().numpy().reshape(1, -1, 1, 1)
    activated = np.where(x.numpy() > 0, x.numpy(), x.numpy() * slope).astype(np.float32)
    mean = activated.astype(np.longdouble).mean(axis=(2, 3))
    weight = head.fc.weight.detach().numpy().astype(np.longdouble)
    bias = head.fc.bias.detach().numpy().astype(np.longdouble)
    want = (mean @ weight.T + bias).astype(np.float32).reshape(-1)
    with torch.no_grad():
        have = head(x)
        single = head.train()(x)
    assert have.dtype == torch.float32
    assert have.shape == (3,)
    np.testing.assert_array_equal(have.numpy(), want)
    assert not torch.equal(single, have)
    torch.testing.assert_close(single, have, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantized", [True, False])
def test_training_and_the_twin_stay_in_float32(quantized: bool) -> None:
    """PReLU, mean, linear layer as torch has them; gradients reach everything."""
    head, x = _head(quantized), _features().requires_grad_()
    head.train(quantized)  # the twin in evaluation, the quantised head in training
    logit = head(x)
    want = head.fc(head.prelu(x).mean(dim=(2, 3))).squeeze(1)
    assert torch.equal(logit, want)
    logit.sum().backward()
    assert x.grad is not None
    for tensor in (x, *head.parameters()):
        assert tensor.grad is not None
        assert bool(tensor.grad.any())
