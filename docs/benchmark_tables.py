"""The tables of ``benchmarks.md``, of what ``peers.py`` and ``scaling.py`` recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qmdd.models.tables import Table

_MIB = 1 << 20
#: How a measure of ``scaling.py`` is shown: its unit, how many of it make one, decimals.
_UNITS = {
    "cpu_ms": ("ms", 1.0, 1),
    "memory": ("MiB", float(_MIB), 0),
    "bytes": ("MB", 1e6, 2),
    "export_seconds": ("s", 1.0, 2),
}
_AXES = {"side": "side, pixels", "batch": "batch", "width": "width", "depth": "blocks a stage"}


def benchmark_parts(recorded: Callable[[str], dict[str, Any]]) -> dict[str, str]:
    """All generated parts; ``recorded`` reads a result by its name."""
    peers, scaling = recorded("peers"), recorded("scaling")
    return {
        "peers": _peers(peers),
        "peers-bars": _bars(peers),
        "peers-limit": _limit(peers),
        "scaling": _exponents(scaling),
        "scaling-points": _points(scaling),
    }


def _where(found: dict[str, Any]) -> str:
    return f"Measured {found['measured']}: {found['processor']}; one thread"


def _peers(found: dict[str, Any]) -> str:
    rows = [_peer(row) for row in sorted(found["rows"], key=lambda r: r["times"]["cpu_ms"])]
    columns = ("what", "ms", "over the twin", "exactness", "MB", "export s", "load s")
    twin = "trained" if found["twin_trained"] else "not trained: its weights are random"
    notes = [
        f"{_where(found)}, {found['side']}x{found['side']} pixels, {found['turns']} turns. ms: "
        "median of the processor's time; in brackets 10 to 90 % of the turns. Export: once, by the "
        "clock, parity left out; load: by the processor's time.",
        f"The twin is {twin}. Wrong codes: against the PyTorch source; flipped verdicts and the "
        "largest difference of logits: against the twin, whose own logits spread as given.",
        *(f"{row['name']}: {row['notes']}." for row in found["rows"] if row["notes"]),
        *(f"Absent: {name}: {reason}." for name, reason in found["absent"].items()),
    ]
    return Table("", columns, rows, notes).markdown()


def _peer(row: dict[str, Any]) -> tuple[str, ...]:
    ratio, export = row.get("ratio"), row["export_seconds"]
    over = f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "1"
    return (
        row["name"],
        f"{row['times']['cpu_ms']:.1f}",
        over,
        _exactness(row),
        f"{row['bytes'] / 1e6:.2f}",
        "-" if export is None else f"{export:.1f}",
        f"{row['load_cpu_seconds']:.2f}",
    )


def _exactness(row: dict[str, Any]) -> str:
    exact, logits = row["exact"], row["logits"]
    if exact:
        return f"{exact['wrong']:,} of {exact['codes']:,} codes wrong"
    if logits:
        return (
            f"{logits['flipped']} of {logits['images']} verdicts flipped, logits to "
            f"{logits['largest']:.1g} of {logits['spread']:.1g}"
        )
    return "-"


def _bars(found: dict[str, Any]) -> str:
    words = {True: "yes", False: "no", None: "absent"}
    rows = [
        (
            bar["what"],
            f"{bar['bar']:.2f}",
            "-" if bar["measured"] is None else f"{bar['measured']:.2f}",
            words[bar["passed"]],
        )
        for bar in found["bars"]
    ]
    return Table("", ("ratio", "bar", "measured", "kept, with 0 wrong codes"), rows).markdown()


def _limit(found: dict[str, Any]) -> str:
    native = {
        row["about"]["kernel"]: row["times"]["cpu_ms"]
        for row in found["rows"]
        if row["name"].startswith("qmdd native, 2 bits")
    }
    rows = []
    for name, rate in found["peak_gmacs"].items():
        least, ms = found["limit_ms"][name], native.get(name)
        cells = ("-", "-") if ms is None else (f"{ms:.1f}", f"{ms / least:.2f}")
        rows.append((name, f"{rate:.0f}", f"{least:.1f}", *cells))
    columns = ("what multiplies", "G multiply-adds a second", "ms at least", "native, 2 bits, ms")
    return Table("", (*columns, "over it"), rows).markdown()


def _exponents(found: dict[str, Any]) -> str:
    rows = [
        (_AXES[name], form, *(_power(powers.get(measure)) for measure in _UNITS))
        for name, axis in found["axes"].items()
        for form, powers in axis["exponents"].items()
    ]
    columns = ("grows with", "form", "time", "memory", "file", "export")
    absent = [f"Absent: {name}: {reason}." for name, reason in found["absent"].items()]
    return Table("", columns, rows, [f"{_where(found)}.", *absent]).markdown()


def _power(value: float | None) -> str:
    """``-`` for what does not depend on the axis."""
    return "-" if value is None else f"{value:.2f}"


def _points(found: dict[str, Any]) -> str:
    rows = [
        (_AXES[name], f"{point['at']:g}", form, *(_cell(values, m) for m in _UNITS))
        for name, axis in found["axes"].items()
        for point in axis["points"]
        for form, values in point["forms"].items()
    ]
    titles = ("time", "memory", "file", "export")
    units = (unit for unit, _, _ in _UNITS.values())
    columns = tuple(f"{title}, {unit}" for title, unit in zip(titles, units, strict=True))
    return Table("", ("axis", "at", "form", *columns), rows).markdown()


def _cell(values: dict[str, float], measure: str) -> str:
    _, unit, digits = _UNITS[measure]
    return f"{values[measure] / unit:.{digits}f}"
