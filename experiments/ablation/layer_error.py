"""Fig. 3: quantisation error of each layer, RGB input against NPR input.

The paper gives MSE per layer and not what exactly it compares. Here: full-precision networks
trained on each representation (the ablation's starts); every layer's activations, as they reach the
place of its quantizer, under MinMax with a range taken on training images; errors on test images.
Three readings of "error":

* ``mse``: of this layer alone, everything before it in full precision (the paper's plot);
* ``relative``: the same over the activations' variance, so that scales do not decide;
* ``arriving``: all layers before it quantised too, over the variance: what has built up.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qmdd.models import Detector
from qmdd.models.chain import ActivationChain
from qmdd.models.quantizers import MinMaxActivation
from qmdd.runtime.folder import Sample, scan
from qmdd.runtime.images import load_rgb

from . import cells, grids, style
from .inputs import kept
from .results import Line, read_figure, rounded, write_figure
from .runner import Report, Workshop, start_of
from .tables import Table

if TYPE_CHECKING:
    from .command import Options

FIGURE = "fig3"
WIDTHS = (4, 2)
KINDS = ("rgb", "npr")
#: Images that ranges and errors are taken on, spread evenly over the folder.
IMAGES = 48
INPUT = "input"
READINGS = ("mse", "relative", "arriving")

#: Turns a layer's values into what goes on to its convolution.
Change = Callable[[str, Tensor], Tensor]


@contextlib.contextmanager
def _changed(detector: Detector, change: Change) -> Iterator[None]:
    """While the block runs, ``change(layer, values)`` stands in every quantizer's place."""

    def hook(name: str) -> Callable[..., Tensor]:
        return lambda _module, _arguments, out: change(name, out)

    handles = [
        module.register_forward_hook(hook(name.removesuffix(".act")))
        for name, module in detector.named_modules()
        if isinstance(module, ActivationChain)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_errors(detector: Detector, fit: Tensor, held_out: Tensor, bits: int) -> list[Line]:
    """A row a layer, input first; ``fit`` and ``held_out`` are uint8 ``[N, 3, H, W]``.

    ``detector`` is a full-precision one, in evaluation mode.
    """
    quantizers: dict[str, MinMaxActivation] = {}

    def observe(name: str, values: Tensor) -> Tensor:
        quantizers[name] = MinMaxActivation(bits).eval()
        quantizers[name].observe(values)
        return values

    reference: dict[str, Tensor] = {}

    def remember(name: str, values: Tensor) -> Tensor:
        reference[name] = values
        return values

    rows: list[Line] = []

    def quantise(name: str, values: Tensor) -> Tensor:
        exact = reference[name]
        alone = _mse(exact, quantizers[name](exact))
        power = float(exact.double().var(correction=0)) or math.nan
        rows.append(
            {
                "layer": name,
                "mse": alone,
                "relative": alone / power,
                "arriving": _mse(exact, values) / power,
            }
        )
        out: Tensor = quantizers[name](values)
        return out

    with torch.no_grad():
        for images, change in ((fit, observe), (held_out, remember), (held_out, quantise)):
            with _changed(detector, change):
                seen = detector.stem.residual(images) * detector.stem.gain  # type: ignore[operator]
                change(INPUT, seen)
                detector(images)
    return rows


def _mse(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().mean())


def _chosen(samples: list[Sample]) -> Tensor:
    """Pixels of :data:`IMAGES` samples, evenly spread, cut to the smallest image's size."""
    index = np.linspace(0, len(samples) - 1, min(IMAGES, len(samples))).round().astype(int)
    images = [load_rgb(samples[i].path) for i in sorted(set(index.tolist()))]
    height, width = (min(image.shape[axis] for image in images) for axis in (0, 1))
    stacked = np.stack([image[:height, :width] for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def measure(shop: Workshop, seeds: int, report: Report) -> list[Line]:
    """Rows of every start, width and layer."""
    fit, held_out = (_chosen(scan(shop.data / split)) for split in ("train", "test"))
    rows = []
    for number, cell in enumerate(plan := cells.starts(seeds)):
        report("layers", number, len(plan))
        detector, _ = start_of(shop, cell, report)
        for bits in WIDTHS:
            for row in layer_errors(detector.eval(), fit, held_out, bits):
                about = {"kind": cell.representation, "seed": cell.seed, "bits": bits}
                rows.append(rounded_small({**about, **row}))
    return rows


def rounded_small(row: Line) -> Line:
    """Errors to six significant digits: some are far below 1."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}


def run(options: Options, report: Report) -> None:
    """Measure and keep, unless it was measured for these runs already."""
    from .queue import workshop

    shop = workshop(options)
    recipes = [cell.start_recipe(shop.recipe).to_dict() for cell in cells.starts(options.seeds)]
    of = rounded({"data": shop.digests(), "recipes": recipes})
    if not kept(options.results, FIGURE, of):
        with shop.locked():
            rows = measure(shop, options.seeds, report)
        write_figure(options.results, FIGURE, {"of": of, "images": IMAGES, "rows": rows})


def layers(rows: list[Line]) -> list[str]:
    """Layer names in the order in which they run."""
    return list(dict.fromkeys(row["layer"] for row in rows))


def values(rows: list[Line], kind: str, bits: int, layer: str, reading: str) -> list[float]:
    """One number a seed."""
    return [
        row[reading]
        for row in rows
        if (row["kind"], row["bits"], row["layer"]) == (kind, bits, layer)
    ]


def table(results: Path, bits: int = WIDTHS[0]) -> Table:
    """A row a layer: mean (smallest .. largest) over the seeds."""
    rows = read_figure(results, FIGURE)["rows"]
    out = []
    for layer in layers(rows):
        numbers = [
            _spread(values(rows, kind, bits, layer, reading))
            for reading in READINGS
            for kind in KINDS
        ]
        out.append((layer, *numbers))
    columns = [f"{reading}, {kind.upper()}" for reading in READINGS for kind in KINDS]
    return Table(("layer", *columns), out)


def _spread(found: list[float]) -> str:
    middle = f"{grids.mean(found):.2g}"
    return middle if len(found) == 1 else f"{middle} ({min(found):.2g} .. {max(found):.2g})"


def draw(results: Path, folder: Path) -> list[Path]:
    """Three panels at the larger width; a table for each width."""
    rows = read_figure(results, FIGURE)["rows"]
    plot = folder / f"{FIGURE}.svg"
    titles = {
        "mse": "MSE, this layer alone",
        "relative": "MSE / variance, alone",
        "arriving": "MSE / variance, built up",
    }
    with style.canvas(plot, 7.2, 2.9, 1, 3) as (_, axes):
        for axis, reading in zip(axes[0], READINGS, strict=True):
            _lines(axis, rows, reading)
            axis.set_title(titles[reading])
        axes[0][0].legend(fontsize=8)
    written = [plot]
    for bits in WIDTHS:
        path = folder / f"{FIGURE}_{bits}bit.csv"
        table(results, bits).save(path)
        written.append(path)
    return written


def _lines(axis: Any, rows: list[Line], reading: str) -> None:
    names = layers(rows)
    for kind, colour, marker in (("rgb", style.VERMILION, "s"), ("npr", style.BLUE, "o")):
        found = [values(rows, kind, WIDTHS[0], name, reading) for name in names]
        places = [i for i, v in enumerate(found) if v and min(v) > 0]
        middles = [grids.mean(found[i]) for i in places]
        axis.plot(places, middles, marker=marker, markersize=3, color=colour, label=kind.upper())
        axis.fill_between(
            places,
            [min(found[i]) for i in places],
            [max(found[i]) for i in places],
            color=colour,
            alpha=0.25,
            linewidth=0,
        )
    axis.set_yscale("log")
    axis.set_xlabel("layer (0: input)")
