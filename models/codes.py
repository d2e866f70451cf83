"""Integer codes on their way from a quantizer to a convolution."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Codes(NamedTuple):
    """What an activation quantizer hands on in evaluation: ``value = (code - zero) * step``.

    Attributes:
        codes: integers ``0 .. 2^k - 1`` held in float32, any shape.
        step: float32 scalar, what one code is worth.
        zero: the code that stands for the value 0, an integer held in a float32 scalar. It is what
            a convolution pads with; 0 for every quantizer but MinMax.
    """

    codes: Tensor
    step: Tensor
    zero: Tensor

    def centred(self) -> Tensor:
        """``code - zero``: integers again, with 0 for the value 0; what a convolution sums."""
        return self.codes - self.zero
