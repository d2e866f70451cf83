"""How much of a layer's chain its folded table takes in, found from the source itself.

As :mod:`..passes.fold_chain` does it on the graph: the longest monotone end of shift, PReLU, shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...models import ActivationChain, ModelError
from ..passes.fold_chain import fold_table

F32 = npt.NDArray[np.float32]


class Folding(NamedTuple):
    """A layer's table before and after folding.

    Attributes:
        table: thresholds ``[n]`` on what the quantizer itself sees.
        folded: thresholds ``[C, n]`` on what the folded table sees; ``None`` without a chain.
        seen: makes of the chain's input ``[N, C, H, W]`` what the folded table sees.
        taken: the operations that the table takes in, in words; ``left`` those that stay explicit.
    """

    table: F32
    folded: F32 | None
    seen: Callable[[Tensor], Tensor]
    taken: str
    left: str


class _Step(NamedTuple):
    """One operation of a chain: on tensors, on ``[C, m]`` rows, and whether it can be folded."""

    name: str
    of_tensor: Callable[[Tensor], Tensor]
    of_rows: Callable[[F32], F32]
    monotone: bool


def folding(name: str, chain: ActivationChain) -> Folding:
    """The tables of layer ``name``.

    Raises:
        ModelError: its quantizer has none.
    """
    assert chain.quantizer is not None  # noqa: S101 - quantised_chains selects by it
    try:
        table = chain.quantizer.table()
    except ValueError as error:
        raise ModelError(f"layer {name}: {error}") from error
    steps = _steps(chain)
    explicit = next((i for i in range(len(steps), 0, -1) if not steps[i - 1].monotone), 0)
    left, taken = steps[:explicit], steps[explicit:]

    def seen(x: Tensor) -> Tensor:
        for step in left:
            x = step.of_tensor(x)
        return x

    channels = chain.shift_in.bias.numel() if chain.nonlinearity == "rprelu" else 1
    folded = fold_table(table, [step.of_rows for step in taken], channels) if taken else None
    names = [", ".join(step.name for step in part) for part in (taken, left)]
    return Folding(table, folded, seen, names[0], names[1])


def _steps(chain: ActivationChain) -> list[_Step]:
    if chain.nonlinearity == "relu":
        return [_Step("ReLU", torch.relu, lambda x: np.maximum(x, np.float32(0)), True)]
    if chain.nonlinearity == "none":
        return []
    slope = _column(chain.prelu.weight)
    return [
        _shift(chain.shift_in, _column(chain.shift_in.bias)),
        _Step(
            "PReLU",
            chain.prelu,
            lambda x: np.where(x < 0, slope * x, x),
            bool((slope >= 0).all() and np.isfinite(slope).all()),
        ),
        _shift(chain.shift_out, _column(chain.shift_out.bias)),
    ]


def _shift(module: Callable[[Tensor], Tensor], bias: F32) -> _Step:
    return _Step("shift", module, lambda x: x + bias, bool(np.isfinite(bias).all()))


def _column(values: Tensor) -> F32:
    column: F32 = values.detach().cpu().numpy().astype(np.float32)[:, None]
    return column
