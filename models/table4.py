"""The rows of the paper's Table 4 that are ours to reproduce, and what is left over of each.

The paper does not say which layers stay float in which row. So each row is counted as we build it,
and then with what it may have counted besides, each a sum over layers:

* ``downsampling``: the three 1x1 convolutions of the residual in float. N2UQ's code has this as an
  option (results marked * in its README); we quantise them (a float convolution before a quantizer
  is not exact in two runtimes).
* ``element-wise``: float operations outside convolutions (:mod:`.elementwise`).
* ``stem``: the first convolution's weights stored as float; ours have 8 bits.
* ``only weights``: batch-norm, scales, PReLU and the like left out of the storage.

Of the sums that a row can be so, the one nearest to the paper is named. That is a fit with two
choices to a row, not a proof; what hangs on no choice is the slope over the width
(:mod:`.conventions`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

from .config import DetectorConfig
from .conventions import Convention, total_ops
from .elementwise import counted
from .quantizers import FULL_PRECISION
from .registry import build_detector
from .stats import LayerStats
from .storage import Stored, stored_numbers

_BASELINE = {"slr": False, "cqb": False}


@dataclasses.dataclass(frozen=True)
class Published:
    """One row of Table 4, and the options that build what it describes.

    Attributes:
        method: its name there.
        bits: width, 32 for the full-precision baseline.
        giga: OPs in G (FLOPs for the baseline), as printed.
        half: half a unit of its last digit.
        mb: storage in MB, as printed.
        mb_half: half a unit of its last digit.
        options: fields of :class:`.config.DetectorConfig`.
    """

    method: str
    bits: int
    giga: float
    half: float
    mb: float
    mb_half: float
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Method and width."""
        return self.method if self.bits == FULL_PRECISION else f"{self.method}, {self.bits} bits"


#: Paper, Table 4, the rows of ResNet-23.
TABLE4 = (
    Published("FP baseline", 32, 2.7, 0.05, 62.0, 0.5),
    Published(
        "LSQ", 4, 0.37, 0.005, 7.9, 0.05, {**_BASELINE, "activation": "lsq", "weight": "lsq"}
    ),
    Published("N2UQ", 3, 0.30, 0.005, 6.9, 0.05, dict(_BASELINE)),
    Published("Ours", 3, 0.32, 0.005, 6.9, 0.05),
    Published("Ours", 2, 0.25, 0.005, 5.0, 0.05),
)
#: Paper, abstract: "10.8x computational costs and 12.4x storage".
HEADLINE = (10.8, 12.4)


def published(config: DetectorConfig | None, side: int) -> Published | None:
    """The row of the paper's own method that ``config`` builds, ``None`` where there is none."""
    if config is None or side != 256:
        return None
    own = [row for row in TABLE4 if not row.options]
    return next((row for row in own if config == DetectorConfig("resnet23", row.bits)), None)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A row of the paper beside ours.

    Attributes:
        row: the paper's.
        layers: ours as built.
        ops: ours as built, in G; ``ops_terms`` what each assumption adds.
        mb: ours as built, in MB (10^6 bytes); ``mb_terms`` likewise, and may be below zero.
    """

    row: Published
    layers: list[LayerStats]
    ops: float
    ops_terms: dict[str, float]
    mb: float
    mb_terms: dict[str, float]

    def ops_by(self, convention: Convention, *, float_stem: bool = False) -> float:
        """OPs in G by another convention, as built or with the stem in float."""
        layers = _float(self.layers, "stem.conv") if float_stem else self.layers
        return total_ops(layers, convention) / 1e9

    def ops_sum(self) -> tuple[tuple[str, ...], float]:
        """The assumptions whose sum is nearest to the paper's OPs, and that sum."""
        return nearest(self.ops, self.ops_terms, self.row.giga)

    def mb_sum(self) -> tuple[tuple[str, ...], float]:
        """Likewise for the storage."""
        return nearest(self.mb, self.mb_terms, self.row.mb)


def nearest(base: float, terms: dict[str, float], goal: float) -> tuple[tuple[str, ...], float]:
    """The subset of ``terms`` that brings ``base`` nearest to ``goal``; the fewest among equals."""
    subsets: list[tuple[tuple[str, ...], float]] = [((), base)]
    for name, value in terms.items():
        subsets += [((*names, name), total + value) for names, total in subsets]
    return min(subsets, key=lambda found: (round(abs(found[1] - goal), 9), len(found[0])))


def compare(row: Published) -> Compared:
    """Count the network of ``row`` and what each assumption adds."""
    with torch.device("meta"):
        network = build_detector("resnet23", row.bits, **row.options)
    (layers, elementwise), stored = counted(network), stored_numbers(network)
    built = total_ops(layers)
    size = sum(item.bytes for item in stored)
    ops_terms = {"element-wise": elementwise / 1e9}
    mb_terms: dict[str, float] = {}
    if row.bits != FULL_PRECISION:
        ops_terms["downsampling"] = (total_ops(_float(layers, "downsample")) - built) / 1e9
        weights = sum(item.bytes for item in stored if item.kind == "weights")
        mb_terms["only weights"] = (weights - size) / 1e6
        for what, name in (("downsampling", "downsample"), ("stem", "stem.conv")):
            mb_terms[what] = _more_bytes(stored, name) / 1e6
    return Compared(row, layers, built / 1e9, ops_terms, size / 1e6, mb_terms)


def _float(layers: Iterable[LayerStats], ending: str) -> list[LayerStats]:
    return [
        row._replace(weight_bits=FULL_PRECISION, code_bits=FULL_PRECISION)
        if row.name.endswith(ending)
        else row
        for row in layers
    ]


def _more_bytes(stored: Iterable[Stored], ending: str) -> int:
    """What the weights of the layers so called take more in float than at their own width."""
    weights = [i for i in stored if i.kind == "weights" and i.owner.endswith(ending)]
    return sum(item._replace(bits=FULL_PRECISION).bytes - item.bytes for item in weights)
