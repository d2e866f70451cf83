"""What ``torch.save`` writes: zip archives with a pickle in them, and bare pickles."""

from __future__ import annotations

import io
import pickletools
import random
import zipfile
from collections.abc import Sequence

from .plain import NUMBERS, mutate_bytes

_NAMES = (
    *(b"os system", b"builtins eval", b"torch._utils _rebuild_tensor_v2", b"torch device"),
    *(b"torch FloatStorage", b"torch ComplexFloatStorage", b"torch uint4", b"torch float8_e5m2"),
    *(b"torch._utils _rebuild_parameter", b"collections OrderedDict", b"torch Size"),
    *(b"torch._utils _rebuild_sparse_tensor", b"torch._utils _rebuild_qtensor"),
    *(b"torch QInt8Storage", b"torch._tensor _rebuild_from_type_v2", b"torch BoolStorage"),
    *(b"torch._utils _rebuild_meta_tensor_no_storage", b"torch._utils _rebuild_nested_tensor"),
)


def mutate_archive(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The pickle inside, another entry, the archive's own tables, or bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data, seeds)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(item.filename, archive.read(item)) for item in archive.infolist()]
    except Exception:  # noqa: BLE001 - a seed that is changed already
        return mutate_pickle(rng, data, seeds)
    at = rng.randrange(len(entries))
    if rng.random() < 0.7:
        at = next((i for i, (name, _) in enumerate(entries) if name.endswith("data.pkl")), at)
    name, held = entries[at]
    if name.endswith("data.pkl"):
        entries[at] = (name, mutate_pickle(rng, held, seeds))
    elif rng.random() < 0.5:
        entries[at] = (name, mutate_bytes(rng, held, seeds))
    else:
        entries[at] = (rng.choice((name + "x", "constants.pkl", "../x", "a/code/x", "")), held)
    return _zip(entries, rng.choice((zipfile.ZIP_STORED,) * 8 + (zipfile.ZIP_DEFLATED,)))


def _zip(entries: Sequence[tuple[str, bytes]], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, held in entries:
            archive.writestr(zipfile.ZipInfo(name or "x"), held, method)
    return out.getvalue()


def mutate_pickle(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """An operation lost, doubled, moved or with another argument."""
    try:
        operations = _operations(data)
    except Exception:  # noqa: BLE001 - no pickle any more
        return mutate_bytes(rng, data, seeds)
    end = sum(len(operation) for operation in operations)
    at = rng.randrange(len(operations))
    kind = rng.randrange(7)
    if kind == 0:
        del operations[at]
    elif kind == 1:
        operations.insert(at, rng.choice(operations))
    elif kind == 2:
        other = rng.randrange(len(operations))
        operations[at], operations[other] = operations[other], operations[at]
    elif kind == 3:  # BINGET, MARK, TUPLE and others, anywhere
        operations.insert(
            at, rng.choice((b"(", b")", b"t", b"}", b"]", b"R", b"b", b"N", b"0", b"Q"))
        )
    elif kind == 4:
        places = [i for i, operation in enumerate(operations) if operation[:1] == b"c"]
        if places:
            module, _, name = rng.choice(_NAMES).partition(b" ")
            operations[rng.choice(places)] = b"c" + module + b"\n" + name + b"\n"
    elif kind == 5:
        number = rng.choice(NUMBERS)
        operations[at] = rng.choice((b"J" + (number % (1 << 32)).to_bytes(4, "little"), b"K\0"))
    else:
        operations[at] = mutate_bytes(rng, operations[at], ())
    return b"".join(operations) + data[end:]


def _operations(data: bytes) -> list[bytes]:
    places = [place for _, _, place in pickletools.genops(data) if place is not None]
    stop = data.index(b".", places[-1]) + 1
    return [data[a:b] for a, b in zip(places, [*places[1:], stop], strict=True)]
