"""What every quantizer of the project offers.

An activation quantizer is a non-decreasing step function. It is used in two ways:

* ``forward(x)`` is the *fake-quantised* form that training differentiates: values
  ``(code - zero) * step`` with the estimator of the quantizer's own paper for the gradient.
* ``codes(x)`` is the *definition* in evaluation: the integer code of every element, computed in
  float64 from the float32 input. The decision ``ln(x + off) >= t`` in float64 leaves no float32
  close enough to a threshold for two libraries' logarithms to disagree, so the source model means
  the same on every machine, and the tables found from it (DESIGN 3.2) do too.

A weight quantizer likewise: ``forward(w)`` gives fake-quantised weights, ``freeze(w)`` gives
integer codes and one scale per output channel.
"""

from __future__ import annotations

import abc
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..codes import Codes
from ..float_order import F32, bisect_thresholds, float_from_key, key_from_float, neighbours

#: Widths with quantizers; full precision is written 32.
QUANTIZED_BITS = (1, 2, 3, 4, 8)
FULL_PRECISION = 32


class ActivationQuantizer(nn.Module, abc.ABC):
    """A step function from floats to codes ``0 .. top`` and on to ``(code - zero) * step``."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        #: The largest code.
        self.top = 2**bits - 1

    @property
    @abc.abstractmethod
    def step(self) -> Tensor:
        """float32 scalar: what one code is worth."""

    @property
    def zero(self) -> Tensor:
        """float32 scalar: the code, a whole number, that stands for the value 0."""
        return torch.zeros_like(self.step)

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantised values ``(code - zero) * step`` of ``x`` (any shape), differentiable."""

    @abc.abstractmethod
    def count(self, x: Tensor) -> Tensor:
        """Codes of float64 ``x`` (any shape) as float64 integers; NaN gives code 0.

        At the infinities it is the limit of what large numbers give.
        """

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of float32 ``x`` (any shape), held in float32."""
        return self.count(x.to(torch.float64)).to(torch.float32)

    def encode(self, x: Tensor) -> Codes:
        """:meth:`codes` of ``x`` with what they stand for."""
        return Codes(self.codes(x), self.step, self.zero)

    def table(self) -> F32:
        """Thresholds float32 ``[top]``: ``code(x)`` is the number of entries ``<= x``, exactly.

        Found by bisection on :meth:`codes` itself; see :func:`bisect_thresholds`.

        Raises:
            ValueError: a parameter is NaN, or the quantizer is not a non-decreasing function (an
                input scale of zero).
        """

        def codes(x: F32) -> np.ndarray:
            return self.codes(torch.from_numpy(x)).to(torch.int64).cpu().numpy()

        if any(bool(p.isnan().any()) for p in (*self.parameters(), *self.buffers())):
            raise ValueError(f"{type(self).__name__}: a parameter is NaN; train it again")
        table: F32 = bisect_thresholds(codes, rows=1, top=self.top)[0]
        self._check_monotone(table)
        return table

    def _check_monotone(self, table: F32) -> None:
        """Compare the table with the function on a grid over all floats and beside each step."""
        grid = np.linspace(
            key_from_float(np.float32(-3e38)), key_from_float(np.float32(3e38)), 1 << 16
        )
        beside = neighbours(table[np.isfinite(table)], 64).reshape(-1)
        ends = np.array([-np.inf, np.inf], dtype=np.float32)
        x = np.concatenate([float_from_key(grid.astype(np.int64)), beside, ends])
        want = self.codes(torch.from_numpy(x)).cpu().numpy()
        have = np.searchsorted(table, x, side="right")  # a table is in order by construction
        if not np.array_equal(want, have):
            raise ValueError(
                f"{type(self).__name__}: not a non-decreasing step function, so it has no "
                "threshold table (is an input scale zero, or a parameter NaN?)"
            )


class FrozenWeight(NamedTuple):
    """Integer weight codes and their scale.

    ``codes``: int16 ``[C_out, C_in, kh, kw]``; ``scale``: float32 ``[C_out]``. Weight = code*scale.
    """

    codes: Tensor
    scale: Tensor


class WeightQuantizer(nn.Module, abc.ABC):
    """Weights to integer codes, one scale per output channel."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    @abc.abstractmethod
    def codebook(self) -> np.ndarray:
        """The integers that codes can be, ascending: int16 ``[<= 2**bits]``."""

    def adapt(self, weight: Tensor) -> None:
        """Set what is learned to fit ``weight``, once training is to start from other weights."""

    @abc.abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantised ``weight`` (same shape), differentiable."""

    @abc.abstractmethod
    def freeze(self, weight: Tensor) -> FrozenWeight:
        """Codes and scale of ``weight``; what evaluation computes with."""


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``[C_out]`` so that it broadcasts over a weight ``[C_out, ...]``."""
    return values.reshape(-1, *([1] * (like.dim() - 1)))
