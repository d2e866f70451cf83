"""Straight-through pieces shared by the quantizers."""

from __future__ import annotations

from torch import Tensor


def round_ste(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes as if nothing had happened (Bengio et al. 2013)."""
    return (x.round() - x).detach() + x


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` itself, its gradient multiplied by ``factor`` (LSQ, Esser et al. 2020, section 2.2)."""
    return (x - x * factor).detach() + x * factor
