"""The sensitivity of each layer as a figure; needs matplotlib (the extra ``plots``)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

from ..runtime.errors import not_installed
from ..runtime.files import write_atomically
from .errors import CalibrationError
from .sensitivity import Loss

#: Kinds of figure files.
SUFFIXES = (".svg", ".png")


def require_matplotlib() -> None:
    """Raise :class:`CalibrationError` if there can be no figure."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise CalibrationError(not_installed("matplotlib", "plots", error=error)) from error


def plot(losses: Sequence[Loss], path: str | os.PathLike[str], title: str) -> None:
    """Write a figure: layers in the order of the network, a mark for each width, logarithmic.

    Args:
        losses: of every layer at every width.
        path: ends in one of :data:`SUFFIXES`.
        title: above the figure.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(loss.layer for loss in losses))
    positive = [loss.logit_mse for loss in losses if loss.logit_mse > 0]
    floor = min(positive, default=1e-12)
    figure = Figure(figsize=(7.5, 1.2 + 0.24 * len(layers)), layout="constrained")
    axes = figure.subplots()
    for bits in sorted({loss.bits for loss in losses}):
        rows = [loss for loss in losses if loss.bits == bits]
        values = [max(loss.logit_mse, floor) for loss in rows]
        places = [layers.index(loss.layer) for loss in rows]
        axes.plot(values, places, "o-", linewidth=0.8, markersize=4, label=f"{bits} bits")
    axes.set_xscale("log")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("mean squared change of the logit")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", linewidth=0.3)
    axes.legend(fontsize=8)
    kind = os.path.splitext(path)[1].lower().removeprefix(".")
    out = io.BytesIO()
    # No date and fixed identifiers: the same losses give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "qmdd"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, dpi=150, metadata=metadata)
    write_atomically(path, out.getvalue())


__all__ = ["SUFFIXES", "plot", "require_matplotlib"]
