"""The peers as a figure: a bar for each, the processor's time of one image, the fastest on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qmdd.runtime.plot import figure_bytes

_OURS, _TWIN, _PEER = "#4878a8", "#888888", "#e0a040"


def plot_bytes(found: dict[str, Any], path: Path) -> bytes:
    """``found`` as ``peers.py`` records it, in the format of ``path``'s suffix."""
    from matplotlib.figure import Figure

    rows = sorted(found["rows"], key=lambda row: row["times"]["cpu_ms"])
    figure = Figure(figsize=(8.5, 0.3 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        name, spent = row["name"], row["times"]["cpu_ms"]
        color = _OURS if name.startswith("qmdd") else _TWIN if "ratio" not in row else _PEER
        axes.barh(place, spent, 0.7, color=color)
        ratio = f" ({row['ratio']['median']:.2f})" if "ratio" in row else ""
        axes.text(spent, place, f" {spent:.1f}{ratio}", va="center", fontsize=7)
        limit = found["limit_ms"].get(row["about"].get("kernel"))
        if limit:
            axes.plot([limit, limit], [place - 0.35, place + 0.35], color="black", linewidth=1.2)
    axes.invert_yaxis()
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7)
    axes.set_xlabel(
        "milliseconds of one thread an image, measured; in brackets over the FP32 twin;\n"
        "black: the least that this kernel's multiply-adds take, operands in registers",
        fontsize=7,
    )
    axes.set_xlim(0, 1.15 * max(row["times"]["cpu_ms"] for row in rows))
    title = f"ResNet-23, {found['side']}x{found['side']}; {found['machine']['processor']}"
    axes.set_title(title, fontsize=8)
    return figure_bytes(figure, path)
