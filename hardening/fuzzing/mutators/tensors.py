"""Safetensors: the header as JSON, its length, and the tensors' numbers."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any

from .json_text import json_bytes
from .plain import NUMBERS, mutate_bytes

_TYPES = (
    *("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "BF16", "F32", "F64"),
    *("F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "C64", "X", ""),
)
_FLOATS = [
    struct.pack("<f", value)
    for value in (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3.4e38, -1.0, 1e-7)
]


def mutate_safetensors(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The header, a tensor's entry, some numbers, or bytes."""
    kind = rng.randrange(8)
    size = int.from_bytes(data[:8], "little")
    if kind == 0 or not 0 < size <= len(data) - 8:
        return mutate_bytes(rng, data, seeds)
    if kind == 1:
        length = rng.choice((size - 1, size + 1, size + 8, *NUMBERS))
        return length.to_bytes(8, "little") + data[8:]
    if kind in (2, 3):
        return data[: 8 + size] + _numbers(rng, data[8 + size :])
    try:
        header: Any = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        return mutate_bytes(rng, data, seeds)
    if kind in (4, 5) and isinstance(header, dict) and len(header) > 1:
        text = json.dumps(_entry(rng, header)).encode()
    elif kind == 6 and isinstance(header.get("__metadata__"), dict):
        text = json.dumps(_metadata(rng, header)).encode("utf-8", "surrogatepass")
    else:
        text = json_bytes(rng, header)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _numbers(rng: random.Random, data: bytes) -> bytes:
    held = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if len(held) >= 8:
            at = rng.randrange(len(held) // 4) * 4
            held[at : at + 4] = rng.choice(_FLOATS)
    return bytes(held)


def _entry(rng: random.Random, header: dict[str, Any]) -> dict[str, Any]:
    """One tensor of another type, shape or place, or under another's name."""
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    kind = rng.randrange(5)
    if kind == 0:
        entry["dtype"] = rng.choice(_TYPES)
    elif kind == 1:
        shape = list(entry["shape"])
        entry["shape"] = rng.choice(
            (shape[::-1], [*shape, 1], shape[1:], [rng.choice(NUMBERS), *shape[1:]], [], [0])
        )
    elif kind == 2:
        entry["data_offsets"] = [rng.choice((0, *entry["data_offsets"], *NUMBERS)) for _ in "ab"]
    elif kind == 3:
        header[rng.choice((name + "x", "", "stem.gain", *header))] = header.pop(name)
    else:  # another type of the same width, so that the file stays whole
        same = {"F32": ("I32", "U32"), "I64": ("U64", "F64"), "U8": ("I8", "BOOL", "F8_E4M3")}
        entry["dtype"] = rng.choice(same.get(entry["dtype"], _TYPES))
    return header


def _metadata(rng: random.Random, header: dict[str, Any]) -> dict[str, Any]:
    """One text of the metadata changed; where it is JSON itself, as JSON."""
    held = header["__metadata__"]
    if held:
        name = rng.choice(list(held))
        try:
            text = json_bytes(rng, json.loads(held[name])).decode("utf-8", "replace")
        except (ValueError, TypeError, RecursionError):
            text = mutate_bytes(rng, str(held[name]).encode(), ()).decode("utf-8", "replace")
        held[name] = text
    return header
