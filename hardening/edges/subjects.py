"""Quantizers to compare with their tables: every kind and width, with parameters of several sorts.

``trained`` draws what training could have made, ``zoo`` takes it from a built-in checkpoint; the
others are what an adversary would write into a checkpoint: floats at their limits, thresholds on
top of each other, offsets that leave the logarithm nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from qmdd.models.quantizers import (
    ACTIVATIONS,
    QUANTIZED_BITS,
    ActivationQuantizer,
    LsqActivation,
    MinMaxActivation,
    N2uqActivation,
    SlrActivation,
    build_activation,
)

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = 1e-45


class Subject(NamedTuple):
    """A quantizer with parameters of one sort.

    Attributes:
        kind: one of :data:`ACTIVATIONS`.
        slr: whether it stands under SLR.
        bits: width of the codes.
        sort: of the parameters, one of :data:`SORTS`.
    """

    kind: str
    slr: bool
    bits: int
    sort: str

    @property
    def name(self) -> str:
        """Such as ``slr n2uq 2 bits, trained``."""
        return f"{'slr ' if self.slr else ''}{self.kind} {self.bits} bits, {self.sort}"

    def quantizer(self) -> ActivationQuantizer:
        """Built, in evaluation mode; the same one every time."""
        if self.sort == "zoo":
            return _from_zoo(self.bits)
        quantizer = build_activation(self.kind, self.bits, self.slr).eval()
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        with torch.no_grad():
            SORTS[self.sort](quantizer, rng)
        return quantizer


def subjects() -> Iterator[Subject]:
    """All of them, the sort last to change: what every kind needs comes first."""
    for sort in (*SORTS, "zoo"):
        for kind in ACTIVATIONS:
            for slr in (False, True):
                for bits in QUANTIZED_BITS:
                    if kind == "binary" and bits != 1:
                        continue
                    if sort == "falling" and kind != "n2uq":
                        continue
                    if sort == "zoo" and (kind, slr) != ("n2uq", True):
                        continue
                    if sort == "zoo" and bits not in _ZOO:
                        continue
                    yield Subject(kind, slr, bits, sort)


def _trained(quantizer: ActivationQuantizer, rng: np.random.Generator) -> None:
    if isinstance(quantizer, SlrActivation):
        quantizer.running_max.fill_(rng.uniform(0.5, 6.0))
        quantizer.tau.fill_(rng.uniform(-0.3, 0.5))
        quantizer = quantizer.inner
    if isinstance(quantizer, MinMaxActivation):
        quantizer.low.fill_(-rng.uniform(0.2, 2.0))
        quantizer.high.fill_(rng.uniform(0.5, 5.0))
    elif isinstance(quantizer, LsqActivation):
        quantizer.raw_step.fill_(rng.uniform(0.5, 3.0) / quantizer.top)
    elif isinstance(quantizer, N2uqActivation):
        gaps = rng.uniform(0.05, 2.0, quantizer.top) / quantizer.top
        quantizer.a.copy_(torch.from_numpy(gaps))
        quantizer.start.fill_(rng.uniform(-0.5, 0.5))
        quantizer.scale1.fill_(rng.uniform(0.5, 2.0))
        quantizer.scale2.fill_(rng.uniform(0.5, 2.0))


def _tiny(quantizer: ActivationQuantizer, rng: np.random.Generator) -> None:
    """Steps and ranges below anything sensible: subnormal where nothing holds them above."""
    if isinstance(quantizer, SlrActivation):
        quantizer.running_max.fill_(_SMALLEST)
        quantizer.tau.fill_(1e-38)  # off is next to nothing: the logarithm's argument is clamped
        quantizer = quantizer.inner
    if isinstance(quantizer, MinMaxActivation):
        quantizer.low.fill_(-_SMALLEST)
        quantizer.high.fill_(_SMALLEST)
    elif isinstance(quantizer, LsqActivation):
        quantizer.raw_step.fill_(_SMALLEST)
    elif isinstance(quantizer, N2uqActivation):
        # Gaps at their floor, and the first threshold at zero: the first float above is subnormal.
        quantizer.a.fill_(_SMALLEST)
        quantizer.start.copy_(-quantizer.gaps[0] / 2)
        quantizer.scale1.fill_(float(rng.choice([1e-38, 1.0, 1e30])))


def _huge(quantizer: ActivationQuantizer, rng: np.random.Generator) -> None:
    """The largest finite parameters; thresholds so far out that float32 has them as one."""
    slr = isinstance(quantizer, SlrActivation)
    if isinstance(quantizer, SlrActivation):
        quantizer.running_max.fill_(_LARGEST)
        quantizer.tau.fill_(float(rng.choice([-_LARGEST, _LARGEST, -1.0])))
        quantizer = quantizer.inner
    if isinstance(quantizer, MinMaxActivation):
        quantizer.low.fill_(-_LARGEST / 4)
        quantizer.high.fill_(_LARGEST / 4)
    elif isinstance(quantizer, LsqActivation):
        quantizer.raw_step.fill_(_LARGEST)
    elif isinstance(quantizer, N2uqActivation):
        # The logarithm of the largest float32 is 88.7.
        quantizer.start.fill_(88.7 if slr else 1e30)
        quantizer.a.fill_(0.0 if slr else 1.0)
        quantizer.scale1.fill_(1.0 if slr else float(rng.choice([1e-8, 1.0, 1e30])))


def _equal(quantizer: ActivationQuantizer, rng: np.random.Generator) -> None:
    """Many thresholds that are one float32, beside others that are not."""
    _trained(quantizer, rng)
    slr = isinstance(quantizer, SlrActivation)
    inner = quantizer.inner if isinstance(quantizer, SlrActivation) else quantizer
    if isinstance(quantizer, SlrActivation):
        quantizer.running_max.fill_(1.0)
        quantizer.tau.fill_(-1.0)  # off is 0: the logarithm of the input itself
    if isinstance(inner, N2uqActivation):
        inner.a.fill_(0.0)
        inner.a[:: max(1, inner.top // 3)] = 50.0
        inner.scale1.fill_(1.0 if slr else 1e-3)
        inner.start.fill_(-90.0 if slr else 1e6)
    elif isinstance(inner, MinMaxActivation):
        inner.low.fill_(2.0)
        inner.high.fill_(2.0)
    elif isinstance(inner, LsqActivation):
        inner.raw_step.fill_(0.0)


def _falling(quantizer: ActivationQuantizer, rng: np.random.Generator) -> None:
    """N2UQ with a negative input scale: codes are counted from the other end."""
    _trained(quantizer, rng)
    inner = quantizer.inner if isinstance(quantizer, SlrActivation) else quantizer
    if isinstance(inner, N2uqActivation):
        inner.scale1.neg_()


#: How parameters are set, by the sort's name.
SORTS: dict[str, Callable[[ActivationQuantizer, np.random.Generator], None]] = {
    "trained": _trained,
    "tiny": _tiny,
    "huge": _huge,
    "equal": _equal,
    "falling": _falling,
}
#: Layers of built-in ResNet-23s, by their width: the last quantizer of each.
_ZOO = (2, 3, 4)


def _from_zoo(bits: int) -> ActivationQuantizer:
    from qmdd.models import quantised_chains
    from qmdd.models.checkpoint import load_checkpoint
    from qmdd.models.zoo import builtin_checkpoint

    path = builtin_checkpoint("resnet23", bits)
    if path is None:
        raise ValueError(f"no built-in ResNet-23 of {bits} bits")
    _, chain = quantised_chains(load_checkpoint(path).eval())[-1]
    if chain.quantizer is None:
        raise ValueError("a full-precision layer has no quantizer")
    return chain.quantizer
