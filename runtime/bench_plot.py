"""A benchmark as a figure: latency with its 99th percentile, and throughput."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .bench import BenchResult, Configuration
from .plot import figure_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#4878a8", "#e0a040", "#60a060", "#a05080")
_GREY = "#888888"


def plot_bytes(found: BenchResult, path: Path) -> bytes:
    """The figure in the format of ``path``'s suffix."""
    from matplotlib.figure import Figure

    height = max(3.2, 0.28 * len(found.configurations) * (len(found.runtimes) + 1) + 1.5)
    figure = Figure(figsize=(10.5, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    _bars(left, found, "latency")
    _bars(right, found, "throughput")
    left.set_xlabel("milliseconds an image: median, whisker to p99, measured")
    right.set_xlabel("images a second at the median, measured")
    height, width = found.inputs.size
    title = (
        f"{found.bundle.arch}, {found.bundle.bits} bits, {width}x{height} pixels; "
        f"{found.machine.processor}"
    )
    figure.suptitle(title.replace("$", r"\$"), fontsize=8)
    return figure_bytes(figure, path)


def _bars(axes: Axes, found: BenchResult, what: str) -> None:
    names = list(found.runtimes)
    thick = 0.8 / len(names)
    for index, name in enumerate(names):
        color = _GREY if name == "twin" else _COLORS[index % len(_COLORS)]
        places = [at + (index + 0.5) * thick - 0.4 for at in range(len(found.configurations))]
        label = "full-precision twin" if name == "twin" else name
        values, above = zip(*(_value(c, name, what) for c in found.configurations), strict=True)
        axes.barh(places, values, thick, color=color, label=label)
        if what == "latency":
            reach = ([0.0] * len(above), list(above))
            axes.errorbar(values, places, xerr=reach, fmt="none", ecolor="black", capsize=2)
    labels = [
        f"{c.threads} thread{'s' * (c.threads > 1)}\nbatch {c.batch}" for c in found.configurations
    ]
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.legend(fontsize=7)
    axes.grid(axis="x", linewidth=0.3)


def _value(configuration: Configuration, name: str, what: str) -> tuple[float, float]:
    """A bar's length, and how far its whisker reaches beyond."""
    times = next(row.times for row in configuration.rows if row.name == name)
    if what == "throughput":
        return times.images_per_second, 0.0
    return times.median_ms / configuration.batch, (
        (times.p99_ms - times.median_ms) / configuration.batch
    )
