"""``scaling.py`` as a figure: a row for time and one for memory, a column for each axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qmdd.runtime.plot import figure_bytes

_COLORS = ("#888888", "#e0a040", "#60a060", "#4878a8")
_ROWS = (("cpu_ms", "ms of one thread", 1.0), ("memory", "MiB above the bare process", 2.0**-20))
_NAMES = {"side": "side, pixels", "batch": "images", "width": "width", "depth": "blocks a stage"}


def plot_bytes(found: dict[str, Any], path: Path) -> bytes:
    """``found`` as ``scaling.py`` records it, in the format of ``path``'s suffix."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axes = found["axes"]
    figure = Figure(figsize=(10, 5), layout="constrained")
    grid = figure.subplots(len(_ROWS), len(axes), squeeze=False)
    for line, (measure, label, unit) in zip(grid, _ROWS, strict=True):
        for place, (name, axis) in zip(line, axes.items(), strict=True):
            at = [point["at"] for point in axis["points"]]
            for color, form in zip(_COLORS, axis["exponents"], strict=False):
                values = [unit * point["forms"][form][measure] for point in axis["points"]]
                power = axis["exponents"][form][measure]
                place.plot(at, values, "o-", color=color, markersize=3, label=f"{form}: {power}")
            place.set_xscale("log")
            place.set_yscale("log")
            place.set_xticks(at, [f"{value:g}" for value in at])
            place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            for side in (place.xaxis, place.yaxis):
                side.set_minor_formatter(NullFormatter())
            place.set_xlabel(_NAMES[name], fontsize=8)
            place.legend(fontsize=6, title="exponent", title_fontsize=6)
            place.grid(linewidth=0.3)
        line[0].set_ylabel(label)
    figure.suptitle(f"measured, one thread; {found['machine']['processor']}", fontsize=8)
    return figure_bytes(figure, path)
