"""SLR, the Shifted Logarithmic Redistribution quantizer (paper Eq. 10-11).

    off  = min(max|X|, eps) + tau                   Eq. 10, eps >= 1 constant, tau learned per layer
    Q(X) = sum_i [ ln(X + off) >= t_i ]             Eq. 11, t_i those of the wrapped quantizer

``max|X|`` depends on the batch. Training uses the batch's own and keeps a running estimate;
evaluation uses the estimate, so that the quantizer is one fixed function of one float. The argument
of the logarithm is held above :data:`SMALLEST_ARGUMENT`. Strictness of the comparison follows the
wrapped quantizer (N2UQ's is strict): the table found from the whole function makes it immaterial.

N2UQ, LSQ and the sign give the value 0 to their code 0, whatever ``x`` it comes from, and SLR
leaves that as it is. MinMax has a grid of values, so the code that stands for 0 has to be that of
``x = 0``: the one on which ``ln(off)`` falls. Its grid in the logarithm is free
(:class:`.minmax.MinMaxActivation`), and its values are ``(code - zero) * step``.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from .base import ActivationQuantizer
from .minmax import MinMaxActivation

SMALLEST_ARGUMENT = 1e-4
#: Share of the newest batch in the running estimate of ``max|X|``.
MOMENTUM = 0.1


class SlrActivation(ActivationQuantizer):
    """Any activation quantizer behind a shifted logarithm; MinMax with a free grid."""

    running_max: Tensor
    seen: Tensor

    def __init__(self, inner: ActivationQuantizer, epsilon: float = 1.0) -> None:
        super().__init__(inner.bits)
        if epsilon < 1.0:
            raise ValueError(f"SLR needs epsilon >= 1 (paper, Eq. 10), got {epsilon}")
        self.inner = inner
        self.epsilon = epsilon
        self.tau = nn.Parameter(torch.zeros(()))
        self.register_buffer("running_max", torch.full((), epsilon))
        self.register_buffer("seen", torch.zeros(()))

    @property
    def step(self) -> Tensor:
        return self.inner.step

    @property
    def zero(self) -> Tensor:
        if not self._free(self.inner):
            return self.inner.zero
        code = self.inner.count(self._origin(self.running_max))
        return code.to(self.step.dtype)

    @staticmethod
    def _free(inner: ActivationQuantizer) -> TypeGuard[MinMaxActivation]:
        return isinstance(inner, MinMaxActivation) and inner.free

    def _offset(self, largest: Tensor) -> Tensor:
        """Eq. 10 in float64 for a ``max|X|``."""
        return largest.double().clamp_max(self.epsilon) + self.tau.double()

    def _origin(self, largest: Tensor) -> Tensor:
        """The logarithm that ``x = 0`` has, float64."""
        return self._offset(largest).clamp_min(SMALLEST_ARGUMENT).log()

    @property
    def offset(self) -> Tensor:
        """``off`` as evaluation uses it, float64 scalar (Eq. 10 with the running estimate)."""
        return self._offset(self.running_max)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                low, high = torch.aminmax(x.detach())
                largest = torch.maximum(high, -low).to(self.running_max.dtype)
                share = torch.where(self.seen > 0, MOMENTUM, 1.0)
                self.running_max.lerp_(largest, share)
                self.seen.fill_(1.0)
        else:
            largest = self.running_max
        off = largest.clamp_max(self.epsilon) + self.tau
        shifted = (x + off).clamp_min(SMALLEST_ARGUMENT).log()
        inner = self.inner
        value: Tensor = (
            inner(shifted, origin=self._origin(largest)) if self._free(inner) else inner(shifted)
        )
        return value

    def count(self, x: Tensor) -> Tensor:
        shifted = (x + self.offset).clamp_min(SMALLEST_ARGUMENT)
        return self.inner.count(shifted.log())


__all__ = ["SlrActivation"]
