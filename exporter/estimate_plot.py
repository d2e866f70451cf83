"""A bundle's estimate as a figure: the roofline with a mark a kernel, and the time by kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.plot import figure_bytes
from .estimate_report import title
from .estimating import BundleEstimate
from .workload import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {"int8": "#4878a8", "fp16": "#e0a040", "fp32": "#888888"}
_MARKS = dict(zip(KINDS, "sovDP^X", strict=True))


def plot_bytes(found: BundleEstimate, path: Path) -> bytes:
    """The figure in the format of ``path``'s suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _roofline(left, found)
    _by_kind(right, found)
    figure.suptitle(title(found).replace("$", r"\$"), fontsize=8)
    return figure_bytes(figure, path)


def _roofline(axes: Axes, found: BundleEstimate) -> None:
    """Operations a second that the bounds allow over operations a byte, both logarithmic.

    Bytes are those from and to memory: what stays in the cache limits nothing.
    """
    marks: list[tuple[float, float, str, str]] = []
    for estimate in found.estimates:
        color = _COLORS[estimate.precision]
        for bound in estimate.bounds:
            work, moved = (
                2 * bound.multiply_adds + bound.elementwise,
                bound.weight_bytes + bound.memory_bytes,
            )
            if work and moved:
                marks.append((work / moved, 1e3 * work / bound.ms, bound.kind, color))
    low = min((x for x, *_ in marks), default=1.0) / 2
    high = max((x for x, *_ in marks), default=1.0) * 2
    for estimate in found.estimates:
        peak, slope = found.roofs.products[estimate.precision], found.roofs.bandwidth
        places = [low, min(max(peak / slope, low), high), high]
        rates = [min(peak, slope * x) for x in places]
        axes.plot(places, rates, color=_COLORS[estimate.precision], label=estimate.precision)
    for x, y, kind, color in marks:
        axes.plot([x], [y], _MARKS[kind], color=color, markersize=4, alpha=0.6)
    for kind in found.estimates[0].by_kind():
        axes.plot([], [], _MARKS[kind], color="black", markersize=4, label=kind)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte from and to memory")
    axes.set_ylabel("operations a second at most, estimated")
    axes.legend(fontsize=7)
    axes.grid(linewidth=0.3)


def _by_kind(axes: Axes, found: BundleEstimate) -> None:
    kinds = list(found.estimates[0].by_kind())
    height = 0.8 / len(found.estimates)
    for index, estimate in enumerate(found.estimates):
        places = [at + index * height - 0.4 + height / 2 for at in range(len(kinds))]
        values = [estimate.by_kind()[kind] for kind in kinds]
        label = f"{estimate.precision}: {estimate.ms:.3g} ms"
        axes.barh(places, values, height, color=_COLORS[estimate.precision], label=label)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.set_xlabel("ms at least, estimated")
    axes.legend(fontsize=7)
    axes.grid(axis="x", linewidth=0.3)
