"""JSON: values of another type or size, keys missing, doubled or odd, nesting without end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from .plain import NUMBERS, mutate_bytes

#: Stands in the text where something is put that ``json`` itself would not write.
_MARK = "@@raw {}@@"
#: What no well-meant writer writes.
_RAW = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "-0.0", "1E400"),
    *("9" * 400, "-" + "9" * 400, "9" * 4299, "9" * 5000, "0." + "0" * 400 + "1"),
    *("[" * 200 + "]" * 200, "[" * 100_000, '{"a":' * 5000 + "0" + "}" * 5000),
    *('"\\ud800"', '"\\udcff"', '"\\u0000"', '"\\u202e"', '"\\u001b[2J"', "'a'", "01", "", "nul"),
)
_TEXTS = (
    *("", " ", ".", "..", "/", "../../x", "a/../b", "/dev/zero", "-", "\x00", "\n", "\r\n", "%s"),
    *("{}", "{0.__class__}", "\ud800", "\udcff", "\u0663", "\u2028", "é" * 300, "x" * 5000),
    *("true", "None", "0", "1e999", "nan", "model.onnx", "manifest.json", "a\\b", "a:b"),
)


#: A value of another type, made of one of this type.
_OTHER: dict[type, Callable[[Any], Any]] = {
    **{bool: str, int: float, float: str, str: len},
    **{list: str, dict: list},
}


def mutate_json(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to three changes of a document; one in six is changed byte by byte."""
    if rng.random() < 1 / 6:
        return mutate_bytes(rng, data, seeds)
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(rng, data, seeds)
    return json_bytes(rng, plain)


def json_bytes(rng: random.Random, plain: Any) -> bytes:
    """The text of ``plain`` with one to three changes; ``plain`` itself is changed."""
    raw: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        plain = _changed(rng, plain, raw)
    text = json.dumps(plain, ensure_ascii=rng.random() < 0.8, indent=rng.choice((None, None, 1)))
    for index, what in enumerate(raw):
        text = text.replace(json.dumps(_MARK.format(index)), what)
    if rng.random() < 0.1:
        text = _key_again(rng, text)
    return text.encode("utf-8", "surrogatepass")


def _changed(rng: random.Random, plain: Any, raw: list[str]) -> Any:
    """Walk down to some place, and change what is there."""
    inside = isinstance(plain, (dict, list)) and plain
    if not inside or rng.random() < 0.04:
        return _value(rng, plain, raw)
    key: Any = rng.choice(list(plain) if isinstance(plain, dict) else range(len(plain)))
    if rng.random() < 0.6 and isinstance(plain[key], (dict, list)) and plain[key]:
        plain[key] = _changed(rng, plain[key], raw)
        return plain
    change = rng.random()
    if change < 0.6:
        plain[key] = _value(rng, plain[key], raw)
    elif change < 0.75:
        del plain[key]
    elif isinstance(plain, list):
        plain.insert(key, rng.choice([plain[key], _value(rng, plain[key], raw)]))
        if rng.random() < 0.2:
            plain[:] = plain * rng.choice((2, 50))
    elif change < 0.9:
        plain[str(rng.choice([*_TEXTS, *plain, f"{key}x", f"{key}/.."]))] = plain.pop(key)
    else:
        plain[str(rng.choice(_TEXTS))] = _value(rng, plain[key], raw)
    return plain


def _value(rng: random.Random, held: Any, raw: list[str]) -> Any:
    kind = rng.randrange(8)
    if kind == 0:
        raw.append(rng.choice(_RAW))
        return _MARK.format(len(raw) - 1)
    if kind == 1:
        return rng.choice(_TEXTS)
    if kind == 2:
        return rng.choice((None, True, False, [], {}, [[]], [None], {"": None}))
    if kind == 3:
        return rng.choice((1, -1)) * rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice((0.0, -0.0, 0.5, -1.5, 1e-320, 1e38, 1e308, -1e308, 3.0))
    if kind == 5:  # the same in another type
        return _OTHER.get(type(held), str)(held)
    if isinstance(held, int):
        return held + rng.choice((-2, -1, 1, 2, held))
    if isinstance(held, str):
        at = rng.randint(0, len(held))
        return held[:at] + rng.choice(_TEXTS) + held[at:]
    return [held] if kind == 6 else {"a": held}


def _key_again(rng: random.Random, text: str) -> str:
    """Some key a second time, with another value: readers take the last one."""
    at = text.find("{", rng.randrange(max(1, len(text) // 2)))
    key = text.find('"', at)
    end = text.find('"', key + 1)
    if min(at, key, end) < 0:
        return text
    return text[: at + 1] + f"{text[key : end + 1]}: {rng.choice(_RAW[:8])}, " + text[at + 1 :]


def mutate_json_lines(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Lines of JSON: one of them changed, or lines lost, doubled, swapped, joined, torn."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(8)
    if kind < 4:
        lines[at] = mutate_json(rng, lines[at], seeds)
    elif kind == 4:
        del lines[at]
    elif kind == 5:
        lines.insert(at, rng.choice(lines))
    elif kind == 6:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    else:
        return mutate_bytes(rng, data, seeds)
    return rng.choice((b"\n", b"\n", b"\n", b"\n", b"\r\n", b"", b"\n\n")).join(lines)
