"""What ``qmdd compare`` measured: accuracy on the same images, and time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .output import print_line, print_table

Found = Mapping[str, Any]


def print_paired(found: Found) -> None:
    """Both on the same images, and what the difference is worth."""
    paired = found["paired"]
    print_line("")
    print_line(f"{found['data']}: {paired['images']:,} images, the same for both")
    table = []
    for row in paired["rows"]:
        cells = [row["name"], f"{row['images']:,}"]
        for key in ("acc", "ap"):
            cells += [_percent(row["a"][key]), _percent(row["b"][key]), _gap(row, key)]
        table.append(cells)
    columns = ("Acc % A", "B", "B - A", "AP % A", "B", "B - A")
    print_table(("generator", "images", *columns), table)
    print_line(
        f"right on what the other gets wrong: A on {paired['only_a']:,} images, B on "
        f"{paired['only_b']:,} (p = {paired['p']:.3g}, McNemar's exact test); "
        f"verdicts that differ: {paired['verdicts']:,}; "
        f"scores by up to {paired['max_score_diff']:.3g}"
    )
    print_line("B - A in points, with 95 % confidence intervals (paired bootstrap)")


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _gap(row: Found, key: str) -> str:
    value = row["difference"][key]
    if math.isnan(value):
        return "-"
    low, high = row["intervals"][f"{key}_ci"]
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def print_in_turn(found: Found) -> None:
    """Both on this machine, in turn."""
    print_line("")
    table = []
    for side in "ab":
        times = found[side]["times"]
        table.append(
            (
                side.upper(),
                found[side]["runtime"],
                f"{times['median_ms']:.2f}",
                f"{times['p90_ms']:.2f}",
                times["runs"],
                f"{found[side]['load_seconds']:.2f}",
                f"{found[side]['peak_memory'] / (1 << 20):,.0f}",
            )
        )
    print_table(("", "runtime", "median ms", "p90", "runs", "load s", "peak MiB"), table)
    ratio, inputs = found["ratio"], found["inputs"]
    spread = f"{ratio['low']:.2f}-{ratio['high']:.2f}"
    print_line(
        f"B takes {ratio['median']:.2f} times as long as A ({spread}); "
        f"one image of {inputs['width']}x{inputs['height']}, {found['threads']} thread"
        f"{'s' * (found['threads'] != 1)}, in turn on {found['machine']['processor']}; measured"
    )


def print_devices(found: Found) -> None:
    """What devices said of each; nothing where they said nothing."""
    rows = [(side.upper(), row) for side in "ab" for row in found[side]]
    if not rows:
        return
    print_line("")
    print_table(
        ("device", "of", "runtime", "threads", "batch", "median ms"),
        [
            (
                row["device"],
                side,
                row["runtime"],
                row["threads"],
                row["batch"],
                f"{row['median_ms']:.2f}",
            )
            for side, row in sorted(rows, key=lambda pair: (pair[1]["device"], pair[0]))
        ],
    )
    print_line("measured on the devices, each at its own time")
