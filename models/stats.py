"""What a network holds and computes, layer by layer: parameters, multiply-adds, widths.

Counted by running the network's full-precision twin on torch's meta device, which knows shapes and
computes nothing, so that any network of our layers is counted as it really runs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .chain import ActivationChain
from .conv import QuantConv2d, quantised_convolutions
from .detector import Head
from .quantizers import FULL_PRECISION
from .stem import Stem


class LayerStats(NamedTuple):
    """One convolution or linear layer.

    Attributes:
        name: its dotted name.
        kind: ``conv``, ``depthwise`` or ``linear``.
        weights: number of weights, biases left out.
        weight_bits: width of a weight, 32 for full precision.
        code_bits: width of what it reads, 32 for floats, 8 for pixels.
        multiply_adds: for one image.
        shape: of its output, without the batch.
    """

    name: str
    kind: str
    weights: int
    weight_bits: int
    code_bits: int
    multiply_adds: int
    shape: tuple[int, ...]


def layer_stats(network: nn.Module, side: int = 256) -> list[LayerStats]:
    """The layers of ``network`` in the order in which they run on an image of ``side`` pixels.

    ``network`` itself is neither run nor changed. A layer that runs twice is listed twice.
    """
    widths = _code_bits(network)
    twin = _meta_twin(network)
    bits = {name: m.bits for name, m in network.named_modules() if isinstance(m, QuantConv2d)}
    found: list[LayerStats] = []

    def note(name: str, module: nn.Module, out: Tensor) -> None:
        shape = tuple(out.shape[1:])
        if isinstance(module, QuantConv2d):
            weights = math.prod(module.weight_shape)
            multiply_adds = weights * math.prod(shape[1:])
            kind = "depthwise" if module.groups == module.in_channels > 1 else "conv"
            row = (kind, weights, bits[name], widths.get(name, FULL_PRECISION), multiply_adds)
        else:
            weights = sum(p.numel() for n, p in module.named_parameters() if n == "weight")
            row = ("linear", weights, FULL_PRECISION, FULL_PRECISION, weights)
        found.append(LayerStats(name, *row, shape))

    for name, module in twin.named_modules():
        if isinstance(module, (QuantConv2d, nn.Linear)):
            module.register_forward_hook(
                lambda module, _arguments, out, name=name: note(name, module, out)
            )
    with torch.no_grad(), torch.device("meta"):
        twin(torch.empty(1, 3, side, side, dtype=torch.uint8))
    return found


def with_widths(layers: Iterable[LayerStats], network: nn.Module) -> list[LayerStats]:
    """``layers``, counted on a network of the same topology, with the widths of ``network``."""
    codes = _code_bits(network)
    convs = dict(quantised_convolutions(network))
    return [
        layer._replace(
            weight_bits=convs[layer.name].bits, code_bits=codes.get(layer.name, FULL_PRECISION)
        )
        if layer.name in convs
        else layer
        for layer in layers
    ]


def parameters(network: nn.Module) -> int:
    """Parameters of the full-precision twin: everything learned but the quantizers' own."""
    convs = [module for module in network.modules() if isinstance(module, QuantConv2d)]
    latent = {id(conv.weight) for conv in convs}
    others = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if id(parameter) not in latent and ".quantizer." not in f".{name}"
    )
    return sum(math.prod(conv.weight_shape) for conv in convs) + others


def _code_bits(network: nn.Module) -> dict[str, int]:
    """Width of the codes that each quantised convolution reads, from the bound on its sums."""
    return {
        name: (module.top + 1).bit_length() - 1
        for name, module in network.named_modules()
        if isinstance(module, QuantConv2d) and module.bits != FULL_PRECISION
    }


def _meta_twin(network: nn.Module) -> nn.Module:
    """A copy without quantizers and without a single number in it, in evaluation mode."""
    memo: dict[int, object] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        learned = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if learned else empty
    twin = copy.deepcopy(network, memo)
    for module in twin.modules():
        module._forward_hooks.clear()  # a caller's hooks are not to see a run without numbers
        module._forward_pre_hooks.clear()
        if isinstance(module, QuantConv2d):
            module.quantizer = None
            module.weight = nn.Parameter(torch.empty(module.weight_shape, device="meta"))
        elif isinstance(module, ActivationChain):
            module.quantizer = None
        elif isinstance(module, (Stem, Head)):
            module.quantized = False
    return twin.eval()
