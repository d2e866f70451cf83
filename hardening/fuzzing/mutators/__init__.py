"""Changes to valid inputs, drawn from a seeded generator: the same seed gives the same input.

A mutator takes ``(generator, data, seeds)`` and returns other bytes; ``seeds`` are all valid inputs
of the kind, to splice with. What a mutator cannot read it changes byte by byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Mutator = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
