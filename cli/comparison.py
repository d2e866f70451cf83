"""What ``qmdd compare`` found, in words and tables: what differs first, then what is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .comparison_measured import print_devices, print_in_turn, print_paired
from .evaluation import tell_left_out
from .output import print_line, print_table

Found = Mapping[str, Any]
#: Facts that follow from others, and say nothing where these differ.
_HASHES = ("file, SHA-256", "source, SHA-256")


def print_comparison(found: Found, *, every_layer: bool = False) -> None:
    """All of it; of layers those that differ, or every one."""
    print_line(f"A  {found['a']}")
    print_line(f"B  {found['b']}")
    print_line("")
    _print_facts(found["facts"])
    same = _same_facts(found["facts"])
    same += _print_network(found["network"], every_layer)
    same += _print_plan(found["plan"], every_layer)
    same += _print_golden(found["golden"])
    if "paired" in found:
        print_paired(found)
    if "bench" in found:
        print_in_turn(found["bench"])
    print_devices(found["devices"])
    print_line("")
    for line in same:
        print_line(f"same: {line}")
    for what in ("network", "plan", "golden"):
        if isinstance(found[what], str):
            print_line(f"{what} not compared: {found[what]}")
    if not found["devices"]["a"] and not found["devices"]["b"] and "bench" not in found:
        print_line("latency not compared: no figures from devices; --bench times bundles here")
    if "paired" in found:
        tell_left_out(found["skipped"], [])


def _print_facts(rows: Sequence[Found]) -> None:
    table = [
        (row["what"], _shown(row["a"]), _shown(row["b"]), _factor(row["a"], row["b"]))
        for row in rows
        if not row["same"]
    ]
    if table:
        print_table(("what differs", "A", "B", "B / A"), table)


def _same_facts(rows: Sequence[Found]) -> list[str]:
    told = [
        row["what"] if row["what"] in _HASHES else f"{row['what']} ({_shown(row['a'])})"
        for row in rows
        if row["same"] and row["a"] is not None
    ]
    return [", ".join(told)] if told else []


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return f"{len(value)} layers"
    text = str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}..." if is_hash else text


def _factor(a: object, b: object) -> str:
    numbers = [value for value in (a, b) if type(value) in (int, float)]
    return f"{numbers[1] / numbers[0]:.3f}" if len(numbers) == 2 and numbers[0] else ""  # type: ignore[operator]


def _pair(values: Found) -> str:
    """Both sides' value, once where it is the same."""
    one, other = (_cell(values[side]) for side in "ab")
    return one if one == other else f"{one} | {other}"


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(str(number) for number in value)
    return _shown(value)


def _different(part: Found | None) -> str:
    return "-" if part is None else f"{part['different']:,} of {part['count']:,}"


def _print_network(found: Found | str, every_layer: bool) -> list[str]:
    """The layers' table; what is the same, in words."""
    if isinstance(found, str):
        return []
    rows = [row for row in found["layers"] if every_layer or not row["same"]]
    if rows:
        print_line("")
        parts = ("weights", "scales", "thresholds")
        print_table(
            ("layer", "shape", "bits", "reads", "weights differ", "scales", "thresholds"),
            [
                (
                    row["layer"],
                    *(_pair(row[what]) for what in ("shape", "bits", "activation_bits")),
                    *(_different(row[part]) for part in parts),
                )
                for row in rows
            ],
        )
    rest = found["rest"]
    if rest["different"]:
        print_line(
            f"other numbers (batch-norm, shifts, alphas, steps, head): {_different(rest)} differ"
        )
    if found["same"]:
        return [f"the networks, number by number ({len(found['layers'])} layers)"]
    return [f"{line} in all {len(found['layers'])} layers" for line in _same_parts(found)]


def _same_parts(found: Found) -> list[str]:
    lines = []
    for part, name in (("weights", "weight codes"), ("thresholds", "thresholds")):
        counts = [row[part] for row in found["layers"]]
        known = [count for count in counts if count is not None]
        complete = part == "thresholds" or len(known) == len(counts)
        if known and complete and not any(count["different"] for count in known):
            lines.append(name)
    return lines


def _print_plan(found: Found | str, every_layer: bool) -> list[str]:
    """How many layers run how; with ``every_layer`` each one."""
    if isinstance(found, str):
        return []
    if every_layer:
        print_line("")
        names = ("op", "compute", "weight_storage", "weight_bytes", "in_shape")
        print_table(
            ("planned", "op", "computes in", "stored as", "bytes", "reads"),
            [(row["layer"], *(_pair(row[name]) for name in names)) for row in found["layers"]],
        )
    elif not found["same"]:
        print_line("")
        columns = ("planned", "layers of A", "bytes", "layers of B", "bytes", "B / A")
        print_table(columns, _plan_groups(found["layers"]))
    return ["the plans of all layers"] if found["same"] else []


def _plan_groups(rows: Sequence[Found]) -> list[tuple[str, ...]]:
    """A row for each way to run: layers that run so, and their weights' bytes, of both."""
    groups: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        for side in "ab":
            how = [row[part][side] for part in ("op", "compute", "weight_storage")]
            if how[0] is not None:
                name = f"{how[0]} in {how[1]}, weights {how[2]}"
                group = groups.setdefault(name, {"a": [], "b": []})
                group[side].append(row["weight_bytes"][side])
    table = []
    for name, group in groups.items():
        sizes = [(len(group[side]), sum(group[side])) for side in "ab"]
        cells = [f"{number:,}" if size[0] else "-" for size in sizes for number in size]
        table.append(
            (name, *cells, _factor(sizes[0][1], sizes[1][1]) if all(group.values()) else "")
        )
    return table


def _print_golden(found: Found | str) -> list[str]:
    if isinstance(found, str):
        return []
    images = f"{found['images']} golden image{'s' * (found['images'] != 1)}"
    codes = sum(row["codes"] for row in found["layers"])
    different = sum(row["different"] for row in found["layers"])
    apart = found["not_compared"]
    if not different and not found["max_abs_logit_diff"] and not apart:
        return [f"codes ({codes:,}) and logits of the sources on {images}"]
    print_line("")
    print_line(
        f"sources on {images}: {different:,} of {codes:,} activation codes differ, logits by up to "
        f"{found['max_abs_logit_diff']:.3g}"
        + (f"; {len(apart)} layers are not in both, or of another shape" if apart else "")
    )
    return []
