"""The step of each output channel's weights with the least squared error."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..models.quantizers import LsqWeight

#: Steps whose codes are tried, as shares of the largest that clips nothing on the positive side.
SHARES = np.geomspace(1 / 32, 1.0, 49)
#: Rounds of refinement after the search.
_ROUNDS = 8
_SMALLEST = 1e-30


@torch.no_grad()
def fit_weight_steps(quantizer: LsqWeight, weight: Tensor) -> None:
    """Set ``quantizer.raw_step`` to what minimises ``|w - step * code|^2`` in every channel.

    For given codes the best step is ``<w, code> / <code, code>``. So the codes of each of
    :data:`SHARES` are tried with the best step for them, and the best of these is refined by
    taking its codes anew, and the best step for these, which never increases the error.

    Args:
        quantizer: of this ``weight``.
        weight: ``[C_out, C_in, kh, kw]``.
    """
    flat = weight.detach().flatten(1)
    largest = flat.abs().amax(dim=1) / quantizer.high
    best = largest.clone()
    explained = torch.zeros_like(best)  # what the codes explain of |w|^2: the more, the better
    for share in SHARES:
        _keep_better(best, explained, *_best_step(quantizer, flat, largest * float(share)))
    for _ in range(_ROUNDS):
        _keep_better(best, explained, *_best_step(quantizer, flat, best))
    quantizer.raw_step.copy_(best)


def _best_step(quantizer: LsqWeight, flat: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """For the codes of ``step`` ``[C]``: the best step, and what it explains of ``|w|^2``."""
    code = flat / step.clamp_min(_SMALLEST).unsqueeze(1)
    code.clamp_(quantizer.low, quantizer.high).round_()
    norm = code.square().sum(dim=1).clamp_min(1.0)  # whole numbers: 0 only where all are
    found = (code * flat).sum(dim=1) / norm
    return found, found.square() * norm


def _keep_better(best: Tensor, explained: Tensor, step: Tensor, more: Tensor) -> None:
    better = more > explained
    best[better] = step[better]
    explained[better] = more[better]


def dead_channels(weight: Tensor) -> int:
    """Output channels whose weights are all zero."""
    return int((weight.detach().flatten(1).abs().amax(dim=1) == 0).sum())


__all__ = ["SHARES", "dead_channels", "fit_weight_steps"]
