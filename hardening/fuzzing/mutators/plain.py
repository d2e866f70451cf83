"""Bytes, whatever they mean: bits, numbers, cuts, copies, splices."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

#: Numbers at which something changes: signs, widths, limits.
NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535, 65536),
    *(1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1),
)
#: Longest piece that is cut, copied or filled.
_PIECE = 512


def mutate_bytes(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to four changes."""
    held = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        rng.choice(_CHANGES)(rng, held, seeds)
    return bytes(held)


def mutate_ends(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The same in the first or last 512 bytes alone, where formats keep their tables."""
    size = min(_PIECE, len(data))
    if rng.random() < 0.5:
        return mutate_bytes(rng, data[:size], seeds) + data[size:]
    return data[: len(data) - size] + mutate_bytes(rng, data[len(data) - size :], seeds)


def _place(rng: random.Random, held: bytearray) -> int:
    return rng.randrange(len(held)) if held else 0


def _piece(rng: random.Random) -> int:
    return rng.choice((1, 2, 4, 8, 16, rng.randint(1, _PIECE)))


def _flip(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    if held:
        held[_place(rng, held)] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    if held:
        held[_place(rng, held)] = rng.choice((0, 1, 9, 10, 32, 127, 128, 255, rng.randrange(256)))


def _number(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    width = rng.choice((1, 2, 4, 8))
    if len(held) >= width:
        at = rng.randrange(len(held) - width + 1)
        number = rng.choice(NUMBERS) % (1 << 8 * width)
        held[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))


def _cut(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    at = _place(rng, held)
    del held[at : at + _piece(rng)]


def _end(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    del held[_place(rng, held) :]


def _copy(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    start, at = _place(rng, held), _place(rng, held)
    held[at:at] = held[start : start + _piece(rng)] * rng.choice((1, 1, 2, 64))


def _fill(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    at, count = _place(rng, held), _piece(rng)
    held[at : at + count] = bytes([rng.choice((0, 255, 0x7F, 0x41))]) * min(count, len(held) - at)


def _insert(rng: random.Random, held: bytearray, _seeds: Sequence[bytes]) -> None:
    at = _place(rng, held)
    held[at:at] = rng.randbytes(_piece(rng) % 33)


def _splice(rng: random.Random, held: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds) if seeds else b""
    if other:
        held[_place(rng, held) :] = other[rng.randrange(len(other)) :]


_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _byte, _byte, _number, _number),
    *(_cut, _end, _copy, _fill, _insert, _splice),
)
