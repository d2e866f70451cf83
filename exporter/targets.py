"""Targets as data: what a model is lowered for, and the passes that this takes, in order."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .errors import ExportError

if TYPE_CHECKING:
    from .passes.base import Pass


@dataclasses.dataclass(frozen=True)
class Target:
    """A consumer of exported models.

    Attributes:
        name: as given to ``--target``.
        summary: one line for people.
        passes: names of the passes, in order; see :func:`passes_of`.
        opsets: lowest and highest opset that the passes can write.
        claim: what the claim of exactness rests on: ``measured``, ``built, not run`` or
            ``documented``.
    """

    name: str
    summary: str
    passes: tuple[str, ...]
    opsets: tuple[int, int]
    claim: str


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="onnx",
            summary="interchange: standard operators, Q/DQ around every quantised convolution",
            passes=("fold_stem", "pool_head", "fold_chain", "pack_weights", "lower_thresholds"),
            opsets=(17, 25),
            claim="measured",
        ),
        Target(
            name="canonical",
            summary="as traced: qmdd::MultiThreshold with a body in standard operators",
            passes=("fold_stem", "pool_head"),
            opsets=(21, 25),
            claim="measured",
        ),
    )
}


def find_target(name: str) -> Target:
    """The target called ``name``; :class:`ExportError` lists the names otherwise."""
    if name not in TARGETS:
        raise ExportError(f"no target {name!r}; there are {', '.join(sorted(TARGETS))}")
    return TARGETS[name]


def passes_of(target: Target, storage: str, opset: int) -> list[tuple[str, Pass]]:
    """The target's passes, ready to call, with their names."""
    from .passes.fold_chain import fold_chain
    from .passes.fold_stem import fold_stem
    from .passes.lower_thresholds import lower_thresholds
    from .passes.pack_weights import pack_weights
    from .passes.pool_head import pool_head

    known: dict[str, Pass] = {
        "fold_stem": fold_stem,
        "pool_head": pool_head,
        "fold_chain": fold_chain,
        "pack_weights": pack_weights(storage, opset),
        "lower_thresholds": lower_thresholds,
    }
    return [(name, known[name]) for name in target.passes]
