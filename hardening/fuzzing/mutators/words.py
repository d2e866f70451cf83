"""Text of tokens (TOML, lists of hosts, HTTP): one replaced by what nobody expects there."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from .plain import NUMBERS, mutate_bytes

_TOKEN = re.compile(rb"[A-Za-z0-9_.+-]+|[^\sA-Za-z0-9]")
_ODD = (
    *(b"nan", b"inf", b"-inf", b"true", b"1e999", b"-0.0", b"0x" + b"f" * 5000, b"9" * 5000),
    *(b"1" + b"0" * 400, b"1979-05-27", b"07:32:00", b"1979-05-27T07:32:00Z", b'""', b"''", b'"""'),
    *(b"[]", b"{}", b"[[[]]]", b"[" * 300 + b"]" * 300, b"[" * 50_000, b"{a={a={a=1}}}", b"{}={}"),
    *(b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x1b[2J"),
    *(b"a.b.c.d", b"[stage]", b"[[stage]]", b"[layer_bits]", b"x" * 70_000, b"%h", b"$(x)", b"`x`"),
    *(b"-oProxyCommand=x", b"ssh://", b"[::1]", b":0", b":65536", b"@", b"~", b"#", b"\r", b"\r\n"),
    *(
        "\u0663\u0661".encode(),
        "ﬁ".encode(),
        b"99999999999999999999",
        b"-1",
        b"+",
        b"1_000",
        b"0b1",
    ),
)


def mutate_words(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to three tokens or lines changed; one in six byte by byte."""
    if rng.random() < 1 / 6:
        return mutate_bytes(rng, data, seeds)
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice((_token, _token, _token, _line))(rng, data)
    return data


def _token(rng: random.Random, data: bytes) -> bytes:
    found = list(_TOKEN.finditer(data))
    if not found:
        return rng.choice(_ODD)
    one = rng.choice(found)
    other = rng.choice(
        (
            rng.choice(_ODD),
            rng.choice(found)[0],
            str(rng.choice((1, -1)) * rng.choice(NUMBERS)).encode(),
            b"",
            one[0] * 2,
        )
    )
    return data[: one.start()] + other + data[one.end() :]


def _line(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, rng.choice(lines))
    elif kind == 2:
        lines.insert(at, rng.choice(_ODD))
    else:
        rng.shuffle(lines)
    return b"\n".join(lines)
