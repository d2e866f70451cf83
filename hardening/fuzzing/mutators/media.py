"""Images and videos: bytes, their ends, and PNG chunks with their checksums made right again."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

from .plain import mutate_bytes, mutate_ends

_PNG = b"\x89PNG\r\n\x1a\n"


def mutate_media(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A change that a decoder has to find out by itself."""
    if data.startswith(_PNG) and rng.random() < 0.7:
        return _png(rng, data, seeds)
    if rng.random() < 0.6:
        return mutate_ends(rng, data, seeds)
    return mutate_bytes(rng, data, seeds)


def _png(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    chunks, at = [], len(_PNG)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return mutate_bytes(rng, data, seeds)
    at = rng.randrange(len(chunks))
    kind, body = chunks[at]
    change = rng.randrange(5)
    if change == 0:
        del chunks[at]
    elif change == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
    elif change == 2:
        names = (b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fdAT", b"zTXt", b"iTXt", b"IEND")
        chunks[at] = (rng.choice(names), body)
    elif kind == b"IDAT":
        try:
            raw = mutate_bytes(rng, zlib.decompress(body), ())
        except zlib.error:
            raw = body
        chunks[at] = (kind, zlib.compress(raw, 1))
    else:
        chunks[at] = (kind, mutate_bytes(rng, body, ()))
    out = bytearray(_PNG)
    for kind, body in chunks:
        out += len(body).to_bytes(4, "big") + kind + body
        out += zlib.crc32(kind + body).to_bytes(4, "big")
    return bytes(out)
