"""How all plots look: the Okabe-Ito colours (told apart by the colour-blind), small, reproducible.

The same data give the same bytes: no date in the file, element names from a fixed salt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ExperimentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe & Ito 2008, "Color universal design".
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#767676"
#: Of continuous maps; even in lightness, readable without colour.
MAP = "cividis"
#: Plots that are committed stay below this.
LARGEST = 200_000

_SETTINGS: Any = {  # matplotlib types its keys one by one
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "qmdd",
    "savefig.dpi": 150,
}


@contextlib.contextmanager
def canvas(
    path: Path, width: float, height: float, rows: int = 1, columns: int = 1
) -> Iterator[tuple[Figure, list[list[Any]]]]:
    """Yield a figure of ``width`` x ``height`` inches with its axes; written when the block ends.

    Raises:
        ExperimentError: matplotlib is not installed, or the file came out too large to commit.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ExperimentError(
            "plots need matplotlib; run: pip install 'qmdd[plots]' (make env does)"
        ) from error
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        yield figure, axes.tolist()
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    import io

    from qmdd.runtime.files import write_atomically

    stream = io.BytesIO()
    form = path.suffix[1:]
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(stream, format=form, metadata=metadata)
    data = stream.getvalue()
    if len(data) > LARGEST:
        raise ExperimentError(f"{path}: {len(data):,} bytes are more than {LARGEST:,}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
