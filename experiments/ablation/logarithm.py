"""Fig. 7: activations before and after the shifted logarithm (Eq. 10-11), built-in checkpoint.

"Before" is what reaches the quantizer (shift, PReLU, shift done); "after" is ``ln(x + off)`` of it,
``off`` as it was learned. How balanced they are is counted with uniform grids over smallest to
largest value: the entropy of four codes (2 bits at best), and the paper's own count, how many of 16
levels together serve less than 5 % of the values.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qmdd.exporter.samples import sample_images
from qmdd.models import Detector
from qmdd.models.chain import quantised_chains
from qmdd.models.quantizers import SlrActivation
from qmdd.models.quantizers.slr import SMALLEST_ARGUMENT

from . import style, subjects
from .inputs import kept
from .results import Line, read_figure, rounded, write_figure
from .tables import Table

FIGURE = "fig7"
#: The layer that is drawn.
DRAWN = "stages.1.0.conv1"
BINS = 48
#: What Sec. 3.5 counts: levels that serve fewer values than this.
FEW = 0.05
SIDES = ("before", "after")

Values = npt.NDArray[np.float64]


def reaching(detector: Detector, images: Tensor) -> dict[str, tuple[SlrActivation, Tensor]]:
    """Each layer's SLR quantizer and the float32 ``[N, C, H, W]`` that reaches it."""
    found: dict[str, tuple[SlrActivation, Tensor]] = {}

    def note(name: str, slr: SlrActivation) -> Callable[..., None]:
        def hook(chain: Any, arguments: tuple[Tensor, ...]) -> None:
            found[name] = (slr, chain.before_quantizer(arguments[0]))

        return hook

    handles = [
        chain.register_forward_pre_hook(note(name, chain.quantizer))
        for name, chain in quantised_chains(detector)
        if isinstance(chain.quantizer, SlrActivation)
    ]
    try:
        with torch.no_grad():
            detector(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def shifted_log(slr: SlrActivation, x: Tensor) -> Tensor:
    """``ln(x + off)`` in float64, the argument held above the quantizer's own bound."""
    return (x.double() + slr.offset).clamp_min(SMALLEST_ARGUMENT).log().detach()


def uniform_shares(values: Values, levels: int) -> Values:
    """Shares of ``levels`` uniform levels over ``values``' own range, rounded to the nearest."""
    low, high = values.min(), values.max()
    codes = np.rint((values - low) / max(high - low, 1e-12) * (levels - 1)).astype(int)
    shares: Values = np.bincount(codes.reshape(-1), minlength=levels) / codes.size
    return shares


def entropy(shares: Values) -> float:
    """In bits."""
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum()) + 0.0


def idle(shares: Values) -> float:
    """Largest share of the levels that together serve less than :data:`FEW` of the values."""
    return float((np.sort(shares).cumsum() < FEW).mean())


def skewness(values: Values) -> float:
    """Third standardised moment."""
    away = values - values.mean()
    return float((away**3).mean() / (away**2).mean() ** 1.5)


def _row(name: str, slr: SlrActivation, x: Tensor) -> Line:
    both = {"before": x.double().numpy(), "after": shifted_log(slr, x).numpy()}
    codes = slr.codes(x).long().reshape(-1)
    learned = torch.bincount(codes, minlength=slr.top + 1).double() / codes.numel()
    row: Line = {
        "layer": name,
        "off": float(slr.offset.detach()),
        "entropy_learned": entropy(learned.numpy()),
        "codes": learned.tolist(),
    }
    for side, values in both.items():
        row[f"entropy_{side}"] = entropy(uniform_shares(values, 4))
        row[f"idle_{side}"] = idle(uniform_shares(values, 16))
        row[f"skewness_{side}"] = skewness(values)
    return row


def _histogram(values: Values, thresholds: Values) -> Line:
    """Counts by channel over the whole range: ``[C, BINS]``."""
    limits = (float(values.min()), float(values.max()))
    counts = [
        np.histogram(values[:, channel], BINS, limits)[0].tolist()
        for channel in range(values.shape[1])
    ]
    return {"low": limits[0], "high": limits[1], "counts": counts, "thresholds": [*thresholds]}


def measure() -> Line:
    """Numbers of every layer and the drawn layer's histograms, over the sample images."""
    found = reaching(subjects.builtin(), subjects.pixels(sample_images()))
    slr, x = found[DRAWN]
    table = torch.from_numpy(slr.table())
    histograms = {
        "before": _histogram(x.numpy().astype(np.float64), table.double().numpy()),
        "after": _histogram(shifted_log(slr, x).numpy(), shifted_log(slr, table).numpy()),
    }
    rows = [_row(name, *pair) for name, pair in found.items()]
    return rounded({"layer": DRAWN, "rows": rows, "histograms": histograms})


def run(results: Path) -> None:
    """Measure and keep, unless it was measured on the same checkpoint and images."""
    of = subjects.identity()
    if not kept(results, FIGURE, of):
        write_figure(results, FIGURE, {"of": of, **measure()})


def table(results: Path) -> Table:
    """A row a layer."""
    rows = [
        (
            row["layer"],
            f"{row['off']:.2f}",
            *(f"{row[f'skewness_{side}']:.1f}" for side in SIDES),
            *(f"{100 * row[f'idle_{side}']:.0f} %" for side in SIDES),
            *(f"{row[f'entropy_{side}']:.2f}" for side in (*SIDES, "learned")),
        )
        for row in read_figure(results, FIGURE)["rows"]
    ]
    columns = (
        "off",
        *(f"skewness {side}" for side in SIDES),
        *(f"idle levels {side}" for side in SIDES),
        *(f"entropy {side}" for side in SIDES),
        "entropy, learned thresholds",
    )
    return Table(("layer", *columns), rows)


def draw(results: Path, folder: Path) -> list[Path]:
    """Density by channel before and after, and the table."""
    found = read_figure(results, FIGURE)
    picture = folder / f"{FIGURE}.png"
    titles = {"before": "(a) activation $x$", "after": r"(b) $\ln(x + \mathrm{off})$"}
    with style.canvas(picture, 7.2, 3.0, 1, 2) as (figure, axes):
        for axis, side in zip(axes[0], SIDES, strict=True):
            _density(figure, axis, found["histograms"][side])
            axis.set_title(titles[side])
            axis.set_xlabel("channel")
    path = folder / f"{FIGURE}.csv"
    table(results).save(path)
    return [picture, path]


def _density(figure: Any, axis: Any, histogram: Line) -> None:
    from matplotlib.colors import LogNorm

    counts = np.array(histogram["counts"], dtype=np.float64)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    shown = np.ma.masked_less_equal(shares.T, 0)
    image = axis.imshow(
        shown,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="Blues",
        norm=LogNorm(0.01, 100),
        extent=(-0.5, counts.shape[0] - 0.5, histogram["low"], histogram["high"]),
    )
    for threshold in histogram["thresholds"]:
        axis.axhline(threshold, color=style.VERMILION, linewidth=0.8, linestyle="--")
    figure.colorbar(image, ax=axis, label="% of a channel's values", shrink=0.9)
