"""Protocol buffers (ONNX): a field changed, lost or doubled at any depth, lengths kept right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from .plain import NUMBERS, mutate_bytes

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
#: Longer fields are data, not messages.
_MESSAGE = 1 << 16


class Field(NamedTuple):
    """A field of a message: its number, its wire type, its value's bytes."""

    number: int
    wire: int
    value: bytes


def fields_of(data: bytes) -> list[Field] | None:
    """The fields of a message; ``None`` if it is none."""
    found, at = [], 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if at < 0 or not 0 < number < 1 << 29:
            return None
        if wire == _VARINT:
            start = at
            _, at = _varint(data, at)
            end = at
        elif wire in (_FIXED64, _FIXED32):
            start, end = at, at + (8 if wire == _FIXED64 else 4)
        elif wire == _LENGTH:
            size, start = _varint(data, at)
            end = start + size
        else:
            return None
        if at < 0 or start < 0 or end > len(data):
            return None
        found.append(Field(number, wire, data[start:end]))
        at = end
    return found


def bytes_of(fields: Sequence[Field]) -> bytes:
    """The message of ``fields``."""
    out = bytearray()
    for number, wire, value in fields:
        out += _packed(number << 3 | wire)
        if wire == _LENGTH:
            out += _packed(len(value))
        out += value
    return bytes(out)


def mutate_protobuf(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to three fields changed; one in ten byte by byte."""
    if rng.random() < 0.1:
        return mutate_bytes(rng, data, seeds)
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = _changed(rng, data, seeds, 0)
    return data


def _changed(rng: random.Random, data: bytes, seeds: Sequence[bytes], depth: int) -> bytes:
    fields = fields_of(data) if data and (depth == 0 or len(data) < _MESSAGE) else None
    if depth == 1 and fields is None and len(data) >= _MESSAGE:
        fields = fields_of(data)  # the graph itself
    if not fields:
        return mutate_bytes(rng, data, seeds)
    at = rng.randrange(len(fields))
    number, wire, value = fields[at]
    if wire == _LENGTH and rng.random() < 0.8:
        fields[at] = Field(number, wire, _changed(rng, value, seeds, depth + 1))
        return bytes_of(fields)
    kind = rng.randrange(6)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields.insert(rng.randrange(len(fields) + 1), fields[at])
    elif kind == 2:
        fields.insert(at, rng.choice(fields))
    elif kind == 3 and wire == _LENGTH:
        fields[at] = Field(number, wire, b"" if rng.random() < 0.5 else value * 2)
    elif kind == 4:
        other = rng.choice(fields)
        fields[at] = Field(other.number, wire, value)
    elif wire == _VARINT:
        fields[at] = Field(number, wire, _packed(rng.choice(NUMBERS)))
    elif wire == _LENGTH:
        fields[at] = Field(number, wire, mutate_bytes(rng, value, seeds))
    else:
        fields[at] = Field(number, wire, rng.randbytes(len(value)))
    return bytes_of(fields)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and the place behind it, or a place of -1."""
    if at < 0:
        return 0, -1
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    return 0, -1


def _packed(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
