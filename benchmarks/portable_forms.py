"""Which operators the portable form is made of: each candidate's time in ONNX Runtime, one thread.

Thresholds by their number, columns of a 3x3 convolution by the size of the image, and the rest in
pairs. What the passes write is the fastest of each row (``exporter/passes``). *Measured*, by the
thread's own clock, candidates taking turns; every candidate's result is compared with the first's.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/portable_forms.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _forms import Form, thread_ms
from _record import record
from onnx import TensorProto

BYTE, FLOAT = TensorProto.UINT8, TensorProto.FLOAT
CHANNELS, SIDE = 64, 64
COUNTS = (1, 3, 7, 15)
_END = np.iinfo(np.int64).max
Thresholds = Callable[[Form, np.ndarray], str]


def _row(form: Form, value: np.ndarray) -> str:
    shape = form("Shape", "x", start=2, end=4)
    return form("Expand", form.constant(value, np.float32), shape)


def _sum(form: Form, table: np.ndarray, kind: int, *, rows: bool) -> str:
    total = ""
    for column in table.T:
        threshold = _row(form, column) if rows else form.constant(column, np.float32)
        one = form("Cast", form("GreaterOrEqual", "x", threshold), to=kind)
        total = form("Add", total, one) if total else one
    return total if kind == BYTE else form("Cast", total, to=BYTE)


def bytes_along_rows(form: Form, table: np.ndarray) -> str:
    """What is written: sums of bytes, thresholds repeated along a row."""
    return _sum(form, table, BYTE, rows=True)


def bytes_by_channel(form: Form, table: np.ndarray) -> str:
    """Sums of bytes, thresholds of ``C`` numbers."""
    return _sum(form, table, BYTE, rows=False)


def floats(form: Form, table: np.ndarray) -> str:
    """Sums of floats."""
    return _sum(form, table, FLOAT, rows=False)


def bits_by_xor(form: Form, table: np.ndarray) -> str:
    """Bit ``j`` of the code is the exclusive or of every ``2^j``-th comparison."""
    reached = [form("GreaterOrEqual", "x", form.constant(column, np.float32)) for column in table.T]
    total = ""
    for bit in range(len(reached).bit_length()):
        chosen = reached[2**bit - 1 :: 2**bit]
        odd = chosen[0]
        for other in chosen[1:]:
            odd = form("Xor", odd, other)
        one = form("Cast", odd, to=BYTE)
        if bit:
            one = form("Mul", one, form.constant(2**bit, np.uint8))
        total = form("Add", total, one) if total else one
    return total


def where_chain(form: Form, table: np.ndarray) -> str:
    """The last threshold that is reached names the code."""
    code = form.constant(0, np.uint8)
    for number, column in enumerate(table.T, start=1):
        reached = form("GreaterOrEqual", "x", form.constant(column, np.float32))
        code = form("Where", reached, form.constant(number, np.uint8), code)
    return code


def quantised_sums(form: Form, table: np.ndarray) -> str:
    """Microsoft's ``QLinearAdd`` of bytes of scale 1."""
    one, zero = form.constant(1, np.float32), form.constant(0, np.uint8)
    total = ""
    for column in table.T:
        reached = form("GreaterOrEqual", "x", form.constant(column, np.float32))
        byte = form("Cast", reached, to=BYTE)
        operands = (total, one, zero, byte, one, zero, one, zero)
        total = form("QLinearAdd", *operands, domain="com.microsoft") if total else byte
    return total


def broadcast(form: Form, table: np.ndarray) -> str:
    """All comparisons at once, summed over an axis of their own."""
    wide = form("Unsqueeze", "x", form.constant([4]))
    reached = form("GreaterOrEqual", wide, form.constant(table, np.float32))
    ones = form("Cast", reached, to=FLOAT)
    total = form("ReduceSum", ones, form.constant([4]), keepdims=0)
    return form("Cast", total, to=BYTE)


def binary_search(form: Form, table: np.ndarray) -> str:
    """As many rounds as the code has bits, the threshold gathered for each number."""
    count = table.shape[1]
    flat = form.constant(table.reshape(-1), np.float32)
    first = np.arange(CHANNELS, dtype=np.int32) * count
    position = ""
    for k in reversed(range(count.bit_length())):
        probe = form.constant(first + 2**k - 1, np.int32)
        index = form("Add", position, probe) if position else probe
        reached = form("GreaterOrEqual", "x", form("Gather", flat, index))
        bit = form("Cast", reached, to=TensorProto.INT32)
        found = form("Mul", bit, form.constant(2**k, np.int32))
        position = form("Add", position, found) if position else found
    return form("Cast", position, to=BYTE)


THRESHOLDS: dict[str, Thresholds] = {
    "bytes along rows": bytes_along_rows,
    "bytes": bytes_by_channel,
    "floats": floats,
    "xor of bits": bits_by_xor,
    "Where": where_chain,
    "QLinearAdd": quantised_sums,
    "broadcast": broadcast,
    "search": binary_search,
}


def _window(form: Form, source: str, dy: int, dx: int, axes: list[int]) -> str:
    starts = [offset for offset, axis in ((dy, 1), (dx, 2)) if axis in axes]
    ends = [offset - 2 or _END for offset in starts]
    return form("Slice", source, *(form.constant(v) for v in (starts, ends, axes)))


def slices(form: Form) -> str:
    """A Slice for each of nine places and a Concat."""
    places = [_window(form, "x", dy, dx, [1, 2]) for dy in range(3) for dx in range(3)]
    return form("Concat", *places, axis=3)


def slices_apart(form: Form) -> str:
    """Columns first, then rows."""
    row = form("Concat", *(_window(form, "x", 0, dx, [2]) for dx in range(3)), axis=3)
    return form("Concat", *(_window(form, row, dy, 0, [1]) for dy in range(3)), axis=3)


def one_gather(form: Form, side: int, channels: int) -> str:
    """What is written: one Gather of pixels; where they lie is computed once for several layers."""
    i, j, dy, dx = np.indices((side, side, 3, 3))
    places = ((i + dy) * (side + 2) + j + dx).reshape(side, side, 9)
    pixels = form("Reshape", "x", form.constant([0, -1, channels]))
    return form("Gather", pixels, form.constant(places), axis=1)  # another shape is no copy


def bound(session: Any, x: np.ndarray) -> Callable[[], object]:
    """A run into memory that is there: a fresh result would cost more than some of the forms."""
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    result = session.get_outputs()[0].name
    out = session.run(None, {"x": x})[0]
    binding.bind_output(result, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
    return lambda: (session.run_with_iobinding(binding), out)


def _timed(
    forms: dict[str, tuple[Form, str]], x: np.ndarray, kind: int, rounds: int
) -> dict[str, float]:
    """Microseconds of each form; their results are the same."""
    sessions = [form.session(result, kind, {"x": x}) for form, result in forms.values()]
    first = sessions[0].run(None, {"x": x})[0]
    for name, session in zip(forms, sessions, strict=True):
        if not np.array_equal(session.run(None, {"x": x})[0].reshape(first.shape), first):
            raise SystemExit(f"{name}: another result")
    spent = thread_ms([bound(session, x) for session in sessions], rounds)
    return {name: round(1e3 * ms, 1) for name, ms in zip(forms, spent, strict=True)}


def threshold_rows(rounds: int) -> list[dict[str, Any]]:
    """Nanoseconds a number by the count of thresholds."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, SIDE, SIDE, CHANNELS)).astype(np.float32)
    rows = []
    for count in COUNTS:
        table = np.sort(rng.normal(size=(CHANNELS, count)), axis=1).astype(np.float32)
        forms = {}
        for name, write in THRESHOLDS.items():
            form = Form()
            forms[name] = (form, write(form, table))
        spent = _timed(forms, x, BYTE, rounds)
        rows.append(
            {"thresholds": count, **{n: round(1e3 * v / x.size, 2) for n, v in spent.items()}}
        )
        print(rows[-1], flush=True)
    return rows


def column_rows(rounds: int) -> list[dict[str, Any]]:
    """Microseconds of a 3x3 convolution's columns by its size, those of ResNet-23 at 256 pixels."""
    rows = []
    for side, channels in ((64, 64), (32, 128), (16, 256), (8, 512)):
        shape = (1, side + 2, side + 2, channels)
        x = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
        forms: dict[str, tuple[Form, str]] = {}
        for name, write in (("slices", slices), ("rows and columns apart", slices_apart)):
            form = Form()
            forms[name] = (form, write(form))
        form = Form()
        forms["one gather"] = (form, one_gather(form, side, channels))
        spent = _timed(forms, x, BYTE, rounds)
        rows.append({"side": side, "channels": channels, **spent})
        print(rows[-1], flush=True)
    return rows


def _pooled(form: Form, plain: bool) -> str:
    """Means of 1x2 neighbours, then of 2x1."""
    if plain:
        first = form("Transpose", "x", perm=[0, 3, 1, 2])
        for kernel in ([1, 2], [2, 1]):
            first = form("AveragePool", first, kernel_shape=kernel, strides=kernel)
        return form("Transpose", first, perm=[0, 2, 3, 1])
    found = "x"
    for axis, side in ((2, SIDE), (1, SIDE)):
        limits = (form.constant([v]) for v in (0, _END, axis, 2))
        odd = form("Gather", found, form.constant(np.arange(1, side, 2)), axis=axis)
        found = form("Add", form("Slice", found, *limits), odd)
    return form("Mul", found, form.constant(0.25, np.float32))


def _stem(form: Form, plain: bool) -> str:
    """7x7 of stride 2 on integers, and the pooling behind it."""
    weights = form.constant(np.random.default_rng(3).integers(-127, 128, (64, 3, 7, 7)), np.int8)
    if plain:
        held = form("DequantizeLinear", weights, form.constant(1, np.float32))
    else:
        held = form("Cast", weights, to=FLOAT)
    sums = form("Conv", "x", held, strides=[2, 2], pads=[3] * 4)
    return form("MaxPool", sums, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


def _scaled(channels: int) -> Callable[[Form, bool], str]:
    value = np.linspace(0.5, 2, channels, dtype=np.float32)

    def build(form: Form, plain: bool) -> str:
        return form("Mul", "x", form.constant(value, np.float32) if plain else _row(form, value))

    return build


def _prelu(form: Form, plain: bool) -> str:
    slope = form.constant(np.linspace(-0.5, 1, CHANNELS), np.float32)
    return form("PRelu", "x", slope) if plain else form("Max", "x", form("Mul", "x", slope))


def _stage(form: Form, plain: bool) -> str:
    """Two CQBs of 2 bits on the finest grid, in one piece or in two strips of rows."""
    rng, strips = np.random.default_rng(4), 1 if plain else 2
    i, j, dy, dx = np.indices((SIDE, SIDE, 3, 3))
    places = ((i + dy) * (SIDE + 2) + j + dx).reshape(SIDE, SIDE, 9)
    parts = [form.constant(part) for part in np.array_split(places, strips)]
    xs = ["x"] if plain else [
        form("Slice", "x", *(form.constant([v]) for v in (start, start + SIDE // 2, 1)))
        for start in (0, SIDE // 2)
    ]  # fmt: skip
    for _ in range(2):
        table = np.sort(rng.normal(0, 2, (CHANNELS, 3)), axis=1)
        rows = [form.constant(np.tile(column, (SIDE, 1)), np.float32) for column in table.T]
        counts = []
        for x in xs:
            ones = [form("Cast", form("GreaterOrEqual", x, row), to=BYTE) for row in rows]
            counts.append(form("Add", form("Add", *ones[:2]), ones[2]))
        codes = counts[0] if plain else form("Concat", *counts, axis=1)
        pads = form.constant([0, 1, 1, 0, 0, 1, 1, 0])
        padded = form("Pad", codes, pads, form.constant(0, np.uint8))
        pixels = form("Reshape", padded, form.constant([0, -1, CHANNELS]))
        weights = form.constant(rng.integers(-3, 4, (9 * CHANNELS, CHANNELS)), np.int8)
        scale, bias = (form.constant(rng.normal(0, s, (SIDE, CHANNELS)), np.float32)
                       for s in (0.01, 1))  # fmt: skip
        shape = form.constant([0, 0, 0, 9 * CHANNELS])
        found = []
        for x, part in zip(xs, parts, strict=True):
            columns = form("Reshape", form("Gather", pixels, part, axis=1), shape)
            sums = form("Cast", form("MatMulInteger", columns, weights), to=FLOAT)
            main = form("Add", form("Mul", sums, scale), bias)
            rest = form("Mul", x, form.constant(0.4, np.float32))
            found.append(form("Add", form("Add", main, rest), x))
        xs = found
    return xs[0] if plain else form("Concat", *xs, axis=1)


_FINEST = (1, SIDE, SIDE, CHANNELS)
#: By what is done: the plain form, the other one, what both read, and how each is built.
PAIRS: dict[str, tuple[str, str, tuple[int, ...], Callable[[Form, bool], str]]] = {
    **{
        f"a product with a constant of {channels} channels": (
            "[C]",
            "along a row",
            (1, 4096 // channels, 4096 // channels, channels),
            _scaled(channels),
        )
        for channels in (64, 128, 256)
    },
    "PReLU": ("PRelu", "Max(x, slope * x)", _FINEST, _prelu),
    "means of 2x2 neighbours": (
        "AveragePool between Transposes",
        "Slice, Gather, Add",
        _FINEST,
        _pooled,
    ),
    "stem and its pooling": (
        "DequantizeLinear",
        "constant weights",
        (1, 3, 4 * SIDE, 4 * SIDE),
        _stem,
    ),
    "two layers of the first stage": ("whole", "two strips", _FINEST, _stage),
}


def pair_rows(rounds: int) -> list[dict[str, Any]]:
    """Microseconds of pairs that do the same."""
    rng = np.random.default_rng(2)
    rows = []
    for name, (plain, written, shape, build) in PAIRS.items():
        x = rng.integers(-255, 256, shape).astype(np.float32)
        forms = {}
        for way, is_plain in ((plain, True), (written, False)):
            form = Form()
            forms[way] = (form, build(form, is_plain))
        spent = _timed(forms, x, FLOAT, rounds)
        rows.append({"what": name, "forms": spent})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure the tables and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    record(
        "portable_forms",
        {
            "label": "measured",
            "clock": "CPU time of one thread, median, candidates taking turns",
            "numbers": f"{SIDE} x {SIDE} x {CHANNELS}",
            "thresholds": threshold_rows(arguments.rounds),
            "columns": column_rows(arguments.rounds),
            "pairs": pair_rows(arguments.rounds),
        },
    )


if __name__ == "__main__":
    main()
