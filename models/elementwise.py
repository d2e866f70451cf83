"""Operations on single floats: what a network computes beside its convolutions.

Counted while the full-precision twin runs on torch's meta device, one for every number that an
addition, a product, a PReLU, a ReLU or a shift gives; two for batch-norm (scale and shift); for
pooling and means one for every number that goes in. Quantizers are left out (comparisons with
thresholds, Eq. 11: "no extra computational overhead"), so is moving numbers about.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .stats import LayerStats, layer_stats

#: Operations for each number that comes out, by the name of torch's operator.
_PER_OUTPUT = {
    "add": 1,
    "sub": 1,
    "rsub": 1,
    "mul": 1,
    "div": 1,
    "relu": 1,
    "_prelu_kernel": 1,
    "native_batch_norm": 2,
}
#: Operators that pool windows, whose sides are the second argument.
_POOLING = ("avg_pool2d", "max_pool2d_with_indices")
#: Operators that read every number once.
_REDUCTIONS = ("mean", "sum", "_adaptive_avg_pool2d")


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what the operators inside the ``with`` block are worth."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        out = result[0] if isinstance(result, tuple) else result
        if isinstance(out, Tensor):
            self.total += _operations(func.overloadpacket.__name__, args, out)
        return result


def _operations(operator: str, args: tuple[Any, ...], out: Tensor) -> int:
    if operator in _POOLING:
        window = args[1] if len(args[1]) == 2 else (*args[1], *args[1])
        return int(math.prod(window) * out.numel())
    if operator in _REDUCTIONS:
        return int(args[0].numel())
    return int(_PER_OUTPUT.get(operator, 0) * out.numel())


def counted(network: nn.Module, side: int = 256) -> tuple[list[LayerStats], int]:
    """The layers of ``network`` and, from the same run, the float operations outside them."""
    with _Counter() as counter:
        layers = layer_stats(network, side)
    return layers, int(counter.total)


def elementwise_operations(network: nn.Module, side: int = 256) -> int:
    """Float operations outside convolutions and linear layers, for one image of ``side`` pixels."""
    return counted(network, side)[1]
