"""What a comparison of a bundle's model with its source finds: codes, logits and verdicts, by tier.

The source is the network in PyTorch where that is at hand (the exporter's room), else the golden
results that travel in the bundle (:mod:`.golden_check`). Both fill the same results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import BundleError
from .probes import SUFFIX

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

#: *strict*: ONNX Runtime with its optimiser off; *deployed*: what the bundle is made for runs it.
TIERS = ("strict", "deployed")
#: Largest difference of two logits that counts as parity: the last bits of the head's float sums.
LOGIT_BAR = 1e-5
#: The same where every layer sums floats, each runtime in its own order (4e-6 was measured on a
#: trained full-precision ResNet-23; networks with larger logits differ by more).
FLOAT_LOGIT_BAR = 1e-4
#: What a bundle was compared with.
SOURCE, GOLDEN = "source", "golden"


@dataclasses.dataclass
class LayerResult:
    """Codes compared and found different at one quantizer."""

    layer: str
    codes: int = 0
    wrong: int = 0


@dataclasses.dataclass
class TierResult:
    """Parity of one tier over all images.

    Attributes:
        tier: its name.
        images: compared so far.
        layers: in the network's order; empty in full precision, or where codes cannot be seen.
        quantized: whether the network has codes.
        runtime: what ran the model.
        fallbacks: a line for each layer that ``runtime`` silently runs in another precision than
            planned.
        codes_seen: false where a quantised model shows no codes, so that logits alone count.
        code_budget: share of the codes that may differ.
        bar: largest difference of two logits, where it is not the usual one.
    """

    tier: str
    images: int = 0
    max_abs_logit_diff: float = 0.0
    flipped_verdicts: int = 0
    layers: list[LayerResult] = dataclasses.field(default_factory=list)
    quantized: bool = True
    runtime: str = "onnxruntime"
    fallbacks: list[str] = dataclasses.field(default_factory=list)
    codes_seen: bool = True
    code_budget: float = 0.0
    bar: float | None = None

    @property
    def codes_compared(self) -> int:
        """Over all layers and images."""
        return sum(layer.codes for layer in self.layers)

    @property
    def wrong_codes(self) -> int:
        """Codes that differ, over all layers and images."""
        return sum(layer.wrong for layer in self.layers)

    @property
    def logit_bar(self) -> float:
        """:attr:`bar`, or :data:`LOGIT_BAR`, or in full precision :data:`FLOAT_LOGIT_BAR`."""
        if self.bar is not None:
            return self.bar
        return LOGIT_BAR if self.quantized else FLOAT_LOGIT_BAR

    @property
    def passed(self) -> bool:
        """Codes within budget, logits within their bar, no verdict flipped, no fallback."""
        close = self.max_abs_logit_diff <= self.logit_bar
        expected = self.quantized and self.codes_seen
        compared = self.images > 0 and (self.codes_compared > 0 or not expected)
        within = self.wrong_codes <= self.code_budget * self.codes_compared
        same = within and close and not self.flipped_verdicts
        return compared and same and not self.fallbacks

    def add(
        self, logits: F32, codes: Mapping[str, U8], outputs: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Compare a batch.

        Args:
            logits: the source's, ``[N]``.
            codes: the source's, by layer.
            outputs: the model's, ``logit`` and each layer's codes, of the same shapes.

        Raises:
            BundleError: an output of another shape.
        """
        theirs = outputs["logit"]
        _check_shape("logit", logits, theirs)
        with np.errstate(invalid="ignore"):  # equal infinities: their difference is no number
            difference = np.abs(logits.astype(np.float64) - theirs.astype(np.float64))
        # A NaN on either side must not pass: np.max hands it on, and NaN <= bar is false.
        self.max_abs_logit_diff = float(np.max([self.max_abs_logit_diff, difference.max()]))
        self.flipped_verdicts += int(((logits > 0) != (theirs > 0)).sum())
        self.images += len(logits)
        for layer in self.layers:
            ours, found = codes[layer.layer], outputs[layer.layer + SUFFIX]
            _check_shape(layer.layer, ours, found)
            layer.codes += ours.size
            layer.wrong += int((ours != found).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and the manifest."""
        return {
            "tier": self.tier,
            "runtime": self.runtime,
            "images": self.images,
            "codes_compared": self.codes_compared,
            "wrong_codes": self.wrong_codes,
            "code_budget": self.code_budget,
            "max_abs_logit_diff": self.max_abs_logit_diff,
            "logit_bar": self.logit_bar,
            "flipped_verdicts": self.flipped_verdicts,
            "fallbacks": list(self.fallbacks),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }


@dataclasses.dataclass
class VerifyResult:
    """What the comparison of a bundle found.

    Attributes:
        seconds: that it took.
        parity: by tier.
        against: what it was compared with, :data:`SOURCE` or :data:`GOLDEN`.
        notes: what its reader must know, a sentence each.
    """

    bundle: Path
    arch: str
    bits: int
    target: str
    model_bytes: int
    seconds: float
    parity: list[TierResult]
    against: str = SOURCE
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every tier passed."""
        return bool(self.parity) and all(tier.passed for tier in self.parity)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **plain,
            "bundle": str(self.bundle),
            "parity": [tier.to_dict() for tier in self.parity],
            "passed": self.passed,
        }


def _check_shape(what: str, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    if ours.shape != theirs.shape:
        raise BundleError(
            f"{what} has shape {list(theirs.shape)} in the exported model, {list(ours.shape)} in "
            "its source; export it again"
        )
