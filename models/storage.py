"""What a network has to store, number by number: how many, how wide, of what kind, in which layer.

This is theory, in bytes: weights at their own width, packed; everything else that evaluation needs
in float32. It is what a frozen checkpoint holds (:mod:`.checkpoint`) without its header, without
batch-norm's counters and without the threshold tables, which follow from the quantizers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from .chain import ActivationChain, ChannelShift
from .conv import QuantConv2d
from .cqb import CQB
from .packing import packed_bytes
from .quantizers import FULL_PRECISION

#: Kinds of stored numbers, in the order in which they are listed.
KINDS = (
    "weights",
    "scales",
    "batch-norm",
    "shifts and PReLU",
    "quantizers",
    "alphas",
    "linear",
    "other",
)


class Stored(NamedTuple):
    """One tensor of the network.

    Attributes:
        owner: dotted name of the module that holds it, or a layer's own for its weights.
        kind: one of :data:`KINDS`.
        numbers: how many.
        bits: width of each.
        parameter: counts as a parameter of the network: it is learned, and no quantizer's own.
    """

    owner: str
    kind: str
    numbers: int
    bits: int
    parameter: bool

    @property
    def bytes(self) -> int:
        """Packed at its own width, or as float32."""
        if self.bits == FULL_PRECISION:
            return 4 * self.numbers
        return packed_bytes(self.numbers, self.bits)


def stored_numbers(network: nn.Module) -> list[Stored]:
    """Everything that evaluating ``network`` needs; the same for a latent and a frozen one.

    A module that is used in two places is stored, and listed, once.
    """
    found: list[Stored] = []
    within: dict[int, str] = {}  # modules inside a quantizer
    for name, module in network.named_modules():
        if isinstance(module, QuantConv2d):
            found.extend(_convolution(name, module))
            within |= _inside(module.quantizer, "")
            continue
        if isinstance(module, ActivationChain):
            within |= _inside(module.quantizer, "quantizers")
        kind = within.get(id(module))
        if kind == "":
            continue
        own = (
            (tensor, learned)
            for tensors, learned in ((module._parameters, True), (module._buffers, False))
            for tensor in tensors.values()
            if tensor is not None and tensor.is_floating_point()
        )
        for tensor, learned in own:
            what = kind or _kind(module, tensor)
            found.append(Stored(name, what, tensor.numel(), 32, learned and not kind))
    return found


def _convolution(name: str, conv: QuantConv2d) -> Iterator[Stored]:
    yield Stored(name, "weights", math.prod(conv.weight_shape), conv.bits, True)
    if conv.bits != FULL_PRECISION:
        yield Stored(name, "scales", conv.out_channels, 32, False)


def _inside(module: nn.Module | None, kind: str) -> dict[int, str]:
    return {} if module is None else {id(part): kind for part in module.modules()}


def _kind(module: nn.Module, tensor: Tensor) -> str:
    if isinstance(module, nn.BatchNorm2d):
        return "batch-norm"
    if isinstance(module, (nn.PReLU, ChannelShift)):
        return "shifts and PReLU"
    if isinstance(module, nn.Linear):
        return "linear"
    return "alphas" if isinstance(module, CQB) and tensor.dim() == 0 else "other"


def bytes_by_kind(stored: Iterable[Stored]) -> dict[str, int]:
    """Bytes of each of :data:`KINDS`, zeros left out."""
    total = dict.fromkeys(KINDS, 0)
    for item in stored:
        total[item.kind] += item.bytes
    return {kind: count for kind, count in total.items() if count}
