"""Warnings of TensorRT that were looked into: what each means for an exported detector.

A warning that is not listed is shown by the audit as such: somebody has to look into it, then it
gets its line here. ``uint8-retyped`` was met in builds here. The others are expected of TensorRT
8.5 to 10 on a device and were neither met nor looked up: one that reads otherwise there is shown as
unlisted.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class KnownWarning(NamedTuple):
    """``benign`` ones change nothing; the others mean that the engine computes something else."""

    name: str
    pattern: re.Pattern[str]
    benign: bool
    reason: str


def _known(name: str, pattern: str, reason: str, *, benign: bool) -> KnownWarning:
    return KnownWarning(name, re.compile(pattern), benign, reason)


KNOWN = (
    _known(
        "uint8-retyped",
        r"UINT8 zero_point.*Defaulting to INT8",
        "codes above 127 saturate: TensorRT has no uint8 activations and takes them for int8",
        benign=False,
    ),
    _known(
        "weights-converted",
        r"converting weights between types|weights are affected by this issue",
        "weights do not survive in the type that TensorRT chose for them",
        benign=False,
    ),
    _known(
        "int64-narrowed",
        r"INT64 weights.*cast down to INT32",
        "only shapes and axes are INT64 in our models, and they fit (TensorRT before 10)",
        benign=True,
    ),
    _known(
        "lazy-loading",
        r"CUDA lazy loading is not enabled",
        "costs start-up memory only",
        benign=True,
    ),
    _known(
        "tactic-memory",
        r"(Skipping tactic|Tactic Device request).*[Ii]nsufficient",
        "a faster kernel may exist that needs more than --workspace; results are the same",
        benign=True,
    ),
    _known(
        "no-calibrator",
        r"Calibrator (is not being used|won't be used in explicit)",
        "ranges come from the model's own Q/DQ nodes (TensorRT before 10)",
        benign=True,
    ),
    _known(
        "cudnn-cublas-minor",
        r"was linked against (cuDNN|cuBLAS).*but loaded",
        "a JetPack's libraries differ in the last number",
        benign=True,
    ),
)


def known_warning(text: str) -> KnownWarning | None:
    """What is known of the warning ``text``."""
    return next((known for known in KNOWN if known.pattern.search(text)), None)
