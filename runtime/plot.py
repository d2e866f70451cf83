"""An evaluation as a chart: accuracy and average precision of each generator, with intervals."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RuntimeFailure, not_installed
from .evaluate import Evaluation, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Formats by suffix, and what keeps the time of day out of the file.
_METADATA = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_BARS = (("acc", "Acc", "#4878a8"), ("ap", "AP", "#e0a040"))


def check_plot(path: Path) -> None:
    """Raise :class:`RuntimeFailure` if :func:`plot_bytes` cannot make ``path`` on this machine."""
    if path.suffix.lower() not in _METADATA:
        raise RuntimeFailure(f"{path}: a plot is a {', '.join(_METADATA)} file; name one of these")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise RuntimeFailure(not_installed("matplotlib", "plots", error=error)) from error


def plot_bytes(found: Evaluation, path: Path) -> bytes:
    """The chart in the format of ``path``'s suffix: two bars a generator, then the means."""
    from matplotlib.figure import Figure

    rows = [*found.rows, *found.means]
    figure = Figure(figsize=(max(4.0, 0.8 * len(rows) + 1.5), 4.0), layout="constrained")
    axes = figure.subplots()
    for index, (measure, label, color) in enumerate(_BARS):
        places = [at + 0.4 * index - 0.2 for at in range(len(rows))]
        values = [_percent(row.values[measure]) for row in rows]
        axes.bar(places, values, 0.38, label=label, color=color)
        axes.errorbar(
            places, values, yerr=_reach(rows, measure), fmt="none", ecolor="black", capsize=2
        )
    # A dollar sign in a folder's name begins no formula.
    names = [row.name.replace("$", r"\$") for row in rows]
    axes.set_xticks(range(len(rows)), names, rotation=35, ha="right")
    axes.axvline(len(found.rows) - 0.5, color="grey", linewidth=0.8)
    axes.set_ylim(0, 105)
    axes.set_ylabel("% (95 % confidence intervals)")
    figure.legend(loc="outside upper right", ncols=len(_BARS), frameon=False)
    return figure_bytes(figure, path)


def figure_bytes(figure: Figure, path: Path) -> bytes:
    """``figure`` in the format of ``path``'s suffix; the same figure gives the same bytes."""
    import matplotlib as mpl

    stream, form = io.BytesIO(), path.suffix.lower()
    with mpl.rc_context({"svg.hashsalt": "qmdd"}):
        figure.savefig(stream, format=form[1:], dpi=150, metadata=_METADATA[form])
    return stream.getvalue()


def _percent(value: float) -> float:
    return 0.0 if math.isnan(value) else 100 * value


def _reach(rows: list[Row], measure: str) -> tuple[list[float], list[float]]:
    """From the value down and up; a bootstrap's interval need not hold the value itself."""
    down, up = [], []
    for row in rows:
        value, (low, high) = row.values[measure], row.intervals[measure]
        down.append(max(0.0, _percent(value) - _percent(low)))
        up.append(max(0.0, _percent(high) - _percent(value)))
    return down, up
