"""What a process that tries inputs tells its parent, in a mapped file that a crash cannot take.

Counters of cases and outcomes, and the input that is being read.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from .outcome import OUTCOMES

_HEAD = struct.Struct(f"<{2 + len(OUTCOMES)}Q")
#: A longer input is not kept whole; none of ours is.
_MOST = 8 << 20


class Board:
    """The file at ``path``; made if it is not there."""

    def __init__(self, path: Path) -> None:
        size = _HEAD.size + _MOST
        with open(path, "a+b") as stream:
            stream.truncate(size)
            self._map = mmap.mmap(stream.fileno(), size)
        self._held = list(_HEAD.unpack_from(self._map))

    def begin(self, data: bytes) -> None:
        """The next input, before it is read."""
        self._map[_HEAD.size : _HEAD.size + len(data[:_MOST])] = data[:_MOST]
        self._held[0] += 1
        self._held[1] = len(data[:_MOST])
        _HEAD.pack_into(self._map, 0, *self._held)

    def count(self, outcome: str) -> None:
        """One more of ``outcome``."""
        self._held[2 + OUTCOMES.index(outcome)] += 1
        _HEAD.pack_into(self._map, 0, *self._held)

    def look(self) -> tuple[int, dict[str, int]]:
        """Inputs that were begun, and how many of them came to which outcome, as of now."""
        self._held = list(_HEAD.unpack_from(self._map))
        return self._held[0], dict(zip(OUTCOMES, self._held[2:], strict=True))

    def case(self) -> bytes:
        """The input that was begun last."""
        self.look()
        return bytes(self._map[_HEAD.size : _HEAD.size + self._held[1]])

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
