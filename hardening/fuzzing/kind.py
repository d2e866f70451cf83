"""A kind of input: where valid ones come from, how they are changed, and what reads them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from .mutators import Mutator
from .mutators.plain import mutate_bytes
from .workshop import Workshop

#: Reads one input: returns if it is accepted, raises what the command line turns into a line if it
#: is refused.
Reader = Callable[[bytes], None]


class WrongHash(Exception):
    """A file was accepted that is not the one that the manifest lists."""


class NotRight(Exception):
    """Something was accepted, and is not what was written or not usable."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        name: as ``--kind`` takes it.
        what: what is read, and by what, in a line.
        seeds: valid inputs.
        reader: makes the reader; the folder is its own, empty and thrown away.
        mutators: each case takes one of them, drawn evenly.
        guided: modules whose coverage guides (prefixes of names); empty: Python is not the parser.
        cases: of the long run.
        seconds: that one case may take.
    """

    name: str
    what: str
    seeds: Callable[[Workshop], list[bytes]]
    reader: Callable[[Workshop, Path], Reader]
    mutators: tuple[Mutator, ...]
    guided: tuple[str, ...] = ()
    cases: int = 10_000
    seconds: float = 20.0


def case_of(kind: Kind, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """Case ``number`` of a run with ``seed``: always the same bytes."""
    rng = random.Random(f"{kind.name}:{seed}:{number}")
    return changed(kind, rng, rng.choice(seeds), seeds)


def changed(kind: Kind, rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """``data`` changed by one of the kind's mutators; by bytes where that one cannot read it."""
    try:
        return rng.choice(kind.mutators)(rng, data, seeds)
    except Exception:  # noqa: BLE001 - what was changed before may be anything
        return mutate_bytes(rng, data, seeds)
