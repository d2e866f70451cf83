"""Everything between a sum and the next convolution: shifts, PReLU, quantizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .codes import Codes
from .errors import ModelError
from .quantizers import FULL_PRECISION, ActivationQuantizer, build_activation

#: What may stand before the quantizer: shift, PReLU, shift (ReActNet, N2UQ); ReLU; nothing.
NONLINEARITIES = ("rprelu", "relu", "none")


class ChannelShift(nn.Module):
    """A learned bias per channel (ReActNet's shift)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``x + bias`` over ``[N, C, H, W]``."""
        return x + self.bias.reshape(1, -1, 1, 1)


class ActivationChain(nn.Module):
    """The element-wise operations before a convolution, and its activation quantizer.

    Per channel and (with slopes >= 0) monotone: the exporter folds it whole into one table of
    thresholds per channel (DESIGN 3.3). In evaluation it gives :class:`Codes`; in training
    fake-quantised values; with ``bits=32`` plain values always.

    Args:
        channels: channels of the input.
        bits: width of the codes, 32 for none.
        kind: activation quantizer, one of :data:`.quantizers.ACTIVATIONS`.
        slr: wrap it in SLR.
        nonlinearity: one of :data:`NONLINEARITIES`.
    """

    quantizer: ActivationQuantizer | None

    def __init__(
        self,
        channels: int,
        *,
        bits: int,
        kind: str = "n2uq",
        slr: bool = True,
        nonlinearity: str = "rprelu",
    ) -> None:
        super().__init__()
        if nonlinearity not in NONLINEARITIES:
            raise ModelError(
                f"nonlinearity={nonlinearity!r} is not one of {', '.join(NONLINEARITIES)}"
            )
        self.nonlinearity = nonlinearity
        if nonlinearity == "rprelu":
            self.shift_in = ChannelShift(channels)
            self.prelu = nn.PReLU(channels)
            self.shift_out = ChannelShift(channels)
        self.quantizer = None if bits == FULL_PRECISION else build_activation(kind, bits, slr)

    def before_quantizer(self, x: Tensor) -> Tensor:
        """The element-wise part, float32."""
        if self.nonlinearity == "none":
            return x
        if self.nonlinearity == "relu":
            return x.relu()
        out: Tensor = self.shift_out(self.prelu(self.shift_in(x)))
        return out

    def codes(self, x: Tensor) -> Codes:
        """Evaluation: integer codes.

        Raises:
            ModelError: the full-precision twin has none.
        """
        if self.quantizer is None:
            raise ModelError("the full-precision twin has no codes")
        return self.quantizer.encode(self.before_quantizer(x))

    def forward(self, x: Tensor) -> Tensor | Codes:
        """Codes in evaluation; values in training and in the twin."""
        if self.quantizer is not None and not self.training:
            return self.codes(x)
        x = self.before_quantizer(x)
        return x if self.quantizer is None else self.quantizer(x)


def quantised_chains(module: nn.Module) -> list[tuple[str, ActivationChain]]:
    """Every chain of ``module`` that has a quantizer, with its layer's name.

    The layer is called like the chain, without a closing ``.act``: ``stages.0.0.conv1``.
    """
    return [
        (name.removesuffix(".act"), chain)
        for name, chain in module.named_modules()
        if isinstance(chain, ActivationChain) and chain.quantizer is not None
    ]
