"""An activation quantizer of one's own: PACT, a uniform grid whose clip is learned.

Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks (2018):
``y = clamp(x, 0, alpha)``, rounded to a grid of ``2^k - 1`` steps (Eq. 1-2); the gradient to
``alpha`` is 1 where ``x >= alpha``, else 0 (Eq. 3).

    qmdd export --module examples.quantizer:network -o bundle
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qmdd.models import Detector, config, quantizers
from qmdd.models.quantizers import ActivationQuantizer
from qmdd.models.quantizers.ste import round_ste

from . import backbone


class PactActivation(ActivationQuantizer):
    """Codes ``round(clamp(x, 0, alpha) / step)`` with ``step = alpha / (2^k - 1)``."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.alpha = nn.Parameter(torch.tensor(2.0))

    @property
    def step(self) -> Tensor:
        return self.alpha.clamp_min(1e-3) / self.top

    def forward(self, x: Tensor) -> Tensor:
        """What training sees. ``minimum`` gives the gradient to alpha where x is beyond it."""
        alpha = self.alpha.clamp_min(1e-3)
        clipped = torch.minimum(x.clamp_min(0), alpha)
        step = (alpha / self.top).detach()
        return round_ste(clipped / step) * step

    def count(self, x: Tensor) -> Tensor:
        """The definition: tables, folding, export and parity all follow from this, in float64."""
        return (x / self.step.double()).clamp(0, self.top).round().nan_to_num(nan=0.0)


def register() -> None:
    """Make ``pact`` a name.

    In the project these are its line in models/quantizers/__init__.py and one in cli/options.py.
    """
    if "pact" not in config.ACTIVATIONS:
        quantizers._ACTIVATIONS["pact"] = PactActivation
        config.ACTIVATIONS = (*config.ACTIVATIONS, "pact")


def network() -> Detector:
    """The plain backbone with this quantizer, alone and without SLR."""
    register()
    return backbone.network(activation="pact", slr=False)
