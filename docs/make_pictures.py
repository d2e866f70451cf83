"""Draw the pictures of docs/concepts.md from the project's own code, without a display.

python docs/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PICTURES = Path(__file__).parent / "pictures"
#: A layer of the built-in checkpoint whose chain folds whole.
CHECKPOINT, LAYER = "resnet23-w2a2", "stages.0.1.conv1.act"
PHOTOGRAPH, GENERATED = "real_moose.webp", "fake_span_moose.webp"
#: Of a detail and of what lies between two, pixels.
SIDE, GAP = 64, 8


def npr() -> None:
    """A detail of a photograph and of a generated image, and what NPR leaves of either."""
    import torch
    from PIL import Image

    from qmdd.models.npr import npr as residual
    from qmdd.runtime import load_rgb

    samples = Path(__file__).parents[1] / "exporter/samples_data"
    sheet = np.full((2 * SIDE + GAP, 2 * SIDE + GAP, 3), 255, dtype=np.uint8)
    for top, name in ((0, PHOTOGRAPH), (SIDE + GAP, GENERATED)):
        pixels = load_rgb(samples / name)[96 : 96 + SIDE, 96 : 96 + SIDE]
        left = residual(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float())
        seen = np.clip(128 + 2 * left[0].permute(1, 2, 0).numpy(), 0, 255).astype(np.uint8)
        sheet[top : top + SIDE, :SIDE] = pixels
        sheet[top : top + SIDE, SIDE + GAP :] = seen
    height, width = sheet.shape[:2]
    picture = Image.fromarray(sheet).resize((width * 5, height * 5), Image.Resampling.NEAREST)
    picture.save(PICTURES / "npr.png", optimize=True)


def steps() -> None:
    """A quantizer of the built-in checkpoint: what it sees, what its codes stand for."""
    import torch

    from qmdd.models.checkpoint import Checkpoint
    from qmdd.models.zoo import checkpoint_named

    chain = Checkpoint(checkpoint_named(Path(CHECKPOINT))).detector().get_submodule(LAYER)
    quantizer: Any = chain.quantizer
    table = quantizer.table()
    span = float(table[-1] - table[0])
    x = np.linspace(table[0] - 0.6 * span, table[-1] + 0.6 * span, 2000, dtype=np.float32)
    codes = quantizer.codes(torch.from_numpy(x)).numpy()
    _plot_steps(x, codes, table)


def _plot_steps(x: np.ndarray, codes: np.ndarray, table: np.ndarray) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, codes, color="#1f6f8b", linewidth=2, drawstyle="steps-post")
    for number, threshold in enumerate(table, start=1):
        axes.axvline(float(threshold), color="#888888", linewidth=0.8, linestyle=":")
        axes.annotate(f"T{number}", (float(threshold), 3.15), ha="center", fontsize=9)
    axes.set(xlabel=f"input of {LAYER}", ylabel="code", yticks=[0, 1, 2, 3], ylim=(-0.2, 3.5))
    metadata = {"Date": None, "Title": "A quantizer is a step function"}
    figure.savefig(PICTURES / "steps.svg", metadata=metadata)


def main() -> None:
    """Draw all."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "qmdd"
    PICTURES.mkdir(exist_ok=True)
    npr()
    steps()


if __name__ == "__main__":
    main()
