"""Fig. 4: an image and its NPR residual, in full precision and under MinMax at 4 bits.

Each is quantised over its own range, smallest to largest value, with 0 on the grid (paper Eq. 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qmdd.exporter.samples import sample_images
from qmdd.models.npr import npr
from qmdd.models.quantizers import MinMaxActivation

from . import style, subjects
from .results import Line, read_figure, rounded, write_figure
from .tables import Table

FIGURE = "fig4"
BITS = 4
KINDS = ("rgb", "npr")
#: Side of the window that is shown, pixels, from the image's middle.
WINDOW = 112
#: How much the differences are enlarged in the picture.
GAIN = 4


def represented(kind: str, image: Tensor) -> Tensor:
    """Pixel values of ``image`` ``[1, 3, H, W]`` themselves, or their NPR residual; float32."""
    values = image.float()
    return npr(values) if kind == "npr" else values


def quantised(values: Tensor) -> tuple[Tensor, float]:
    """``values`` on a grid of :data:`BITS` bits over their own range, and the grid's step."""
    quantizer = MinMaxActivation(BITS)
    quantizer.observe(values)
    with torch.no_grad():
        return quantizer.eval()(values), float(quantizer.step.detach())


def _row(path: Path, kind: str) -> Line:
    values = represented(kind, subjects.pixels([path]))
    grid, step = quantised(values)
    wrong, away = (values - grid).double(), values.double() - values.double().mean()
    mse = float(wrong.square().mean())
    nonzero = values != 0
    lost = float((grid[nonzero] == 0).double().mean())
    relation = npr(grid) if kind == "rgb" else grid
    return rounded(
        {
            "image": path.name,
            "kind": kind,
            "step": step,
            "mse": mse,
            "relative": mse / float(away.square().mean()),
            "lost": lost,
            "signs": _signs_kept(represented("npr", subjects.pixels([path])), relation),
        }
    )


def _signs_kept(before: Tensor, after: Tensor) -> float:
    """Share of neighbours that differed whose order is the same afterwards."""
    differing = before != 0
    return float((before.sign() == after.sign())[differing].double().mean())


def measure() -> Line:
    """Error of both representations on every sample image."""
    return {"rows": [_row(path, kind) for path in sample_images() for kind in KINDS]}


def run(results: Path) -> None:
    """Measure and keep, unless it was measured on the same images."""
    of = subjects.identity(checkpoint=False)
    if not kept(results, FIGURE, of):
        write_figure(results, FIGURE, {"of": of, **measure()})


def kept(results: Path, figure: str, of: Line) -> bool:
    """Whether ``figure`` was measured on ``of`` already."""
    return (results / f"{figure}.json").exists() and read_figure(results, figure).get("of") == of


def table(results: Path) -> Table:
    """A row a representation: means over the sample images."""
    rows = read_figure(results, FIGURE)["rows"]
    out = []
    for kind in KINDS:
        chosen = [row for row in rows if row["kind"] == kind]
        means = {
            key: sum(row[key] for row in chosen) / len(chosen)
            for key in ("step", "mse", "relative", "lost", "signs")
        }
        out.append(
            (
                kind.upper(),
                f"{means['step']:.1f}",
                f"{means['mse']:.1f}",
                f"{means['relative']:.4f}",
                f"{100 * means['lost']:.1f} %",
                f"{100 * means['signs']:.1f} %",
            )
        )
    columns = ("step", "MSE", "MSE / variance", "nonzero values that become 0", "orders kept")
    return Table(("representation", *columns), out)


def draw(results: Path, folder: Path) -> list[Path]:
    """The picture (from the sample image itself) and the table."""
    image = subjects.pixels([subjects.shown()])
    top = (image.shape[2] - WINDOW) // 2 // 2 * 2
    window = image[:, :, top : top + WINDOW, top : top + WINDOW]
    picture = folder / "fig4.png"
    with style.canvas(picture, 6.0, 4.2, 2, 3) as (_, axes):
        for row, kind in zip(axes, KINDS, strict=True):
            full, whole = represented(kind, window), represented(kind, image)
            quantizer = MinMaxActivation(BITS)
            quantizer.observe(whole)  # the range of the whole image, as in the table
            grid = quantizer.eval()(full)
            _show(row[0], full, f"{kind.upper()}, full precision", signed=kind == "npr")
            _show(row[1], grid, f"{BITS} bits, MinMax", signed=kind == "npr")
            _show(row[2], GAIN * (full - grid), f"difference, {GAIN} times", signed=True)
    path = folder / "fig4.csv"
    table(results).save(path)
    return [picture, path]


def _show(axis: Any, values: Tensor, title: str, *, signed: bool) -> None:
    """RGB of ``values`` ``[1, 3, H, W]``; signed ones around middle grey."""
    shift = 127.5 if signed else 0.0
    shown = (values[0].permute(1, 2, 0) + shift).clamp(0, 255).round().to(torch.uint8)
    axis.imshow(shown.numpy(), interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(title)
