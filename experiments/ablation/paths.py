"""Fig. 6: what CQB's two paths carry (Eq. 6-9), in the built-in 2-bit checkpoint.

Per convolution: the shortcut's output, the quantised convolution's (before alpha), and
``alpha * Q(Conv(x)) + (1 - alpha) * shortcut(x)``. A map is the mean magnitude over the channels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from qmdd.exporter.samples import sample_images
from qmdd.models.paths import Paths, both_paths, heat

from . import style, subjects
from .inputs import kept
from .results import Line, read_figure, rounded, write_figure
from .tables import Table

FIGURE = "fig6"
#: Convolutions that are drawn: the first block, and the first that doubles the channels.
DRAWN = ("stages.0.0.conv1", "stages.0.0.conv2", "stages.1.0.conv1")
PARTS = ("auxiliary", "main", "sum")
TITLES = {"auxiliary": "shortcut", "main": "quantised convolution", "sum": "weighted sum"}
#: Levels that a map is kept with.
LEVELS = 255


def edges(images: Tensor, height: int, width: int) -> Tensor:
    """Gradient magnitude of the luminance, averaged down to ``[N, height, width]``."""
    grey = images.float().mean(dim=1, keepdim=True)
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])  # Sobel
    both = torch.stack([kernel, kernel.T])[:, None]
    gradient = F.conv2d(F.pad(grey, (1,) * 4, mode="replicate"), both)
    return F.adaptive_avg_pool2d(gradient.norm(dim=1), (height, width))


def _correlation(a: Tensor, b: Tensor) -> float:
    """Mean over images of Pearson's correlation of two maps ``[N, H, W]``."""
    both = [m.flatten(1).double() for m in (a, b)]
    centred = [m - m.mean(dim=1, keepdim=True) for m in both]
    product = (centred[0] * centred[1]).sum(1)
    return float((product / (centred[0].norm(dim=1) * centred[1].norm(dim=1))).mean())


def _row(name: str, paths: Paths, images: Tensor) -> Line:
    outline = edges(images, *paths.sum.shape[2:])
    rms = {
        "main": float((paths.alpha * paths.main).double().square().mean().sqrt()),
        "auxiliary": float(((1 - paths.alpha) * paths.auxiliary).double().square().mean().sqrt()),
    }
    return {
        "layer": name,
        "alpha": paths.alpha,
        "rms_main": rms["main"],
        "rms_auxiliary": rms["auxiliary"],
        "paths": _correlation(heat(paths.main), heat(paths.auxiliary)),
        **{f"edges_{part}": _correlation(heat(getattr(paths, part)), outline) for part in PARTS},
    }


def _map(values: Tensor) -> Line:
    """A map ``[H, W]`` as whole numbers over its own range."""
    low, high = float(values.min()), float(values.max())
    codes = ((values - low) / max(high - low, 1e-12) * LEVELS).round().int()
    return {"low": low, "high": high, "codes": codes.tolist()}


def measure() -> Line:
    """Numbers of every convolution over all samples; maps of the drawn ones for one fake."""
    detector = subjects.builtin()
    paths = sample_images()
    images = subjects.pixels(paths)
    found = both_paths(detector, images)
    index = [path.name for path in paths].index(subjects.SHOWN)
    maps = [
        {"layer": name, "part": part, **_map(heat(getattr(found[name], part))[index])}
        for name in DRAWN
        for part in PARTS
    ]
    return rounded({"rows": [_row(n, p, images) for n, p in found.items()], "maps": maps})


def run(results: Path) -> None:
    """Measure and keep, unless it was measured on the same checkpoint and images."""
    of = subjects.identity()
    if not kept(results, FIGURE, of):
        write_figure(results, FIGURE, {"of": of, **measure()})


def table(results: Path) -> Table:
    """A row a convolution."""
    rows = [
        (
            row["layer"],
            f"{row['alpha']:.2f}",
            f"{row['rms_main']:.2f}",
            f"{row['rms_auxiliary']:.2f}",
            *(f"{row[key]:.2f}" for key in ("paths", "edges_main", "edges_auxiliary", "edges_sum")),
        )
        for row in read_figure(results, FIGURE)["rows"]
    ]
    columns = (
        "alpha",
        "RMS of main path, weighted",
        "RMS of auxiliary path, weighted",
        "correlation of the two maps",
        "main with edges",
        "auxiliary with edges",
        "sum with edges",
    )
    return Table(("convolution", *columns), rows)


def draw(results: Path, folder: Path) -> list[Path]:
    """Heat maps, a row a convolution, and the table."""
    maps = {(m["layer"], m["part"]): m for m in read_figure(results, FIGURE)["maps"]}
    picture = folder / f"{FIGURE}.png"
    names = list(dict.fromkeys(layer for layer, _ in maps))
    with style.canvas(picture, 5.6, 1.85 * len(names), len(names), len(PARTS)) as (figure, axes):
        for row, name in zip(axes, names, strict=True):
            for axis, part in zip(row, PARTS, strict=True):
                found = maps[name, part]
                axis.imshow(found["codes"], cmap=style.MAP, interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_xlabel(f"{found['low']:.2f} .. {found['high']:.2f}", fontsize=7)
                if row is axes[0]:
                    axis.set_title(TITLES[part])
            row[0].set_ylabel(name, fontsize=8)
        figure.align_ylabels()
    path = folder / f"{FIGURE}.csv"
    table(results).save(path)
    return [picture, path]
