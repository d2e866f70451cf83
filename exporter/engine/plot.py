"""A bundle's layers as a chart: bytes of weights and of what each reads, coloured by precision."""

from __future__ import annotations

from pathlib import Path

from ...runtime.plot import figure_bytes
from .inspect import Inspection

_COLORS = {"int8": "#4878a8", "float16": "#e0a040", "float32": "#c05050", "missing": "#303030"}
_PANELS = (("weight_bytes", "weights, KiB"), ("input_bytes", "input of one image, KiB"))


def plot_bytes(found: Inspection, path: Path) -> bytes:
    """The chart in the format of ``path``'s suffix, one bar a layer in the model's order."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    layers = found.audit.layers
    figure = Figure(figsize=(max(6.0, 0.22 * len(layers) + 2), 6.0), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    shown = [layer.built or layer.planned for layer in layers]
    colors = [_COLORS.get(compute, "#808080") for compute in shown]
    for axes, (attribute, label) in zip(panels, _PANELS, strict=True):
        heights = [getattr(layer, attribute) / 1024 for layer in layers]
        hatches = ["xx" if layer.fell_back else "" for layer in layers]
        axes.bar(range(len(layers)), heights, color=colors, hatch=hatches, edgecolor="white")
        axes.set_ylabel(label)
    names = [layer.name.removesuffix(f"/{layer.op}").replace("$", r"\$") for layer in layers]
    panels[-1].set_xticks(range(len(layers)), names, rotation=90, fontsize=6)
    used = list(dict.fromkeys(shown))
    handles = [Patch(color=_COLORS.get(name, "#808080"), label=name) for name in used]
    if found.audit.fallbacks:
        handles.append(
            Patch(facecolor="white", edgecolor="black", hatch="xx", label="not as planned")
        )
    bundle = found.bundle
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    title = f"{bundle.arch}, {bundle.bits} bits, {bundle.target}: {found.label}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure_bytes(figure, path)
