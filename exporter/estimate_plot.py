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
    """Operations a second that the bounds allow over operations a byte, both logarithmic."""
    ends = (0.02, 5000.0)
    for estimate in found.estimates:
        color = _COLORS[estimate.precision]
        peak, slope = found.roofs.products[estimate.precision], found.roofs.bandwidth
        corner = min(max(peak / slope, ends[0]), ends[1])
        rates = [min(peak, slope * x) for x in (ends[0], corner, ends[1])]
        axes.plot([ends[0], corner, ends[1]], rates, color=color, label=estimate.precision)
        for bound in estimate.bounds:
            work = 2 * bound.multiply_adds + bound.elementwise
            if work and bound.bytes:
                x, y = work / bound.bytes, 1e3 * work / bound.ms
                axes.plot([x], [y], _MARKS[bound.kind], color=color, markersize=4, alpha=0.6)
    for kind in [kind for kind in KINDS if kind in found.estimates[0].by_kind()]:
        axes.plot([], [], _MARKS[kind], color="black", markersize=4, label=kind)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte moved (cached bytes included)")
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
