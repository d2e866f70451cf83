"""The report's sections on figures that look into networks: 3, 4, 6 and 7."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from . import grids, inputs, layer_error, logarithm, paths
from .results import Line, read_figure

PLOTS = "../experiments/figures"
AGAIN = "`python experiments/all.py` runs what is missing."
BUILT_IN = "the built-in checkpoint `resnet23-w2a2` (full width, 2 bits, NPR + CQB + SLR)"
SAMPLES = "the eight sample images that travel with the project"
CREDIT = "sample `fake_span_moose` (after a photograph by Ryan Hagerty, USFWS, public domain)"

Section = Callable[[Path], str]


def _measured(title: str, figure: str) -> Callable[[Callable[[Path, Line], str]], Section]:
    """A section with its title; one sentence where there is no result yet."""

    def wrap(make: Callable[[Path, Line], str]) -> Section:
        @wraps(make)
        def section(results: Path) -> str:
            body = f"Not run yet. {AGAIN}\n"
            if (results / f"{figure}.json").exists():
                body = make(results, read_figure(results, figure))
            return f"## {title}\n\n{body}"

        return section

    return wrap


@_measured("Fig. 3: quantisation error of each layer", "fig3")
def fig3(results: Path, found: Line) -> str:
    """RGB against NPR."""
    rows = found["rows"]
    names = layer_error.layers(rows)
    early, late = names[: len(names) // 2], names[len(names) // 2 :]
    said = {
        "mse": "MSE of the layer alone (what the paper plots)",
        "relative": "MSE over the activations' variance, alone",
        "arriving": "the same, all layers before it quantised too",
    }
    seeds = len({row["seed"] for row in rows})
    width = found["of"]["recipes"][0]["width"]
    lines = [
        f"| {text} | {_larger(rows, early, key)} | {_larger(rows, late, key)} | "
        f"{_ratio(rows, early, key)} | {_ratio(rows, late, key)} |"
        for key, text in said.items()
    ]
    head = "| error | RGB larger, first half | second half | RGB / NPR, first half | second half |"
    return "\n".join(
        [
            f"![Fig. 3]({PLOTS}/fig3.svg)\n",
            f"Full-precision stand-ins of {width:g} of ResNet-23's width, without CQB, one trained "
            f"on each input (the starts of Fig. 9's cells, {seeds} seeds: line and "
            f"band are mean and smallest to largest); activations under MinMax at 4 bits, ranges "
            f"from {found['images']} training images, errors on {found['images']} test "
            "images. Layer 0 is what the stem sees.\n",
            "**The paper**: RGB input gives larger errors, above all in the earlier layers.\n",
            head,
            "|---|---:|---:|---:|---:|",
            *lines,
            f"\nRatios are geometric means over the layers.{_learned(results)}\n",
            "<details><summary>every layer, 4 bits</summary>\n",
            layer_error.table(results).markdown(),
            "</details>\n",
        ]
    )


def _learned(results: Path) -> str:
    """How much the networks of Fig. 3 can have learned: what was trained on from them."""
    for figure, bars, how in (
        ("fig2", ("RGB, 32 bits", "NPR, 32 bits"), "in full precision (Fig. 2)"),
        ("fig9", ("N2UQ on RGB", "NPR"), "at 2 bits (Fig. 9)"),
    ):
        found = {e.bar.label: e.values("all", "acc") for e in grids.series(figure, results)}
        rgb, npr = (found[bar] for bar in bars)
        if rgb and npr:
            return (
                f" The two networks did not learn equally much: trained on {how} they reach Acc "
                f"{grids.spread(rgb)} on RGB and {grids.spread(npr)} on NPR."
            )
    return ""


def _means(rows: list[Line], name: str, reading: str) -> tuple[float, float]:
    rgb, npr = (
        grids.mean(layer_error.values(rows, kind, layer_error.WIDTHS[0], name, reading))
        for kind in layer_error.KINDS
    )
    return rgb, npr


def _larger(rows: list[Line], names: list[str], reading: str) -> str:
    pairs = [_means(rows, name, reading) for name in names]
    return f"{sum(rgb > npr for rgb, npr in pairs)} of {len(pairs)} layers"


def _ratio(rows: list[Line], names: list[str], reading: str) -> str:
    product, count = 1.0, 0
    for rgb, npr in (_means(rows, name, reading) for name in names):
        if rgb > 0 and npr > 0:
            product, count = product * rgb / npr, count + 1
    return f"{product ** (1 / count):.2g}" if count else "-"


@_measured("Fig. 4: inputs under 4 bits", "fig4")
def fig4(results: Path, found: Line) -> str:
    """Images and residuals."""
    rgb, npr = (_average(found["rows"], kind) for kind in inputs.KINDS)
    relation = "larger" if npr["relative"] > rgb["relative"] else "smaller"
    return "\n".join(
        [
            f"![Fig. 4]({PLOTS}/fig4.png)\n",
            f"A window of {CREDIT}; NPR around middle grey. MinMax over the whole image's range, "
            f"16 levels. The table is over {SAMPLES}.\n",
            inputs.table(results).markdown(),
            "*Orders kept*: of neighbours (a pixel and the top-left one of its 2x2 cell) that "
            "differ, the share whose difference still has its sign.\n",
            "**The paper**: under 4 bits RGB changes visibly, while NPR keeps most of its "
            "information.\n",
            f"**Here**: NPR's absolute error is {_times(npr['mse'], rgb['mse'])} RGB's, but "
            f"relative to what the signal varies it is {relation}, "
            f"{_times(npr['relative'], rgb['relative'])} RGB's: a few large residuals set the "
            f"range, and {100 * npr['lost']:.0f} % of the "
            f"nonzero residuals become 0. Of neighbours' orders, NPR keeps "
            f"{100 * npr['signs']:.0f} %, RGB {100 * rgb['signs']:.0f} %.\n",
        ]
    )


def _average(rows: list[Line], kind: str) -> dict[str, float]:
    chosen = [row for row in rows if row["kind"] == kind]
    keys = ("mse", "relative", "lost", "signs")
    return {key: grids.mean([row[key] for row in chosen]) for key in keys}


def _times(a: float, b: float) -> str:
    return f"{a / b:.2g} times"


@_measured("Fig. 6: main and auxiliary path", "fig6")
def fig6(results: Path, found: Line) -> str:
    """CQB's two paths."""
    rows = found["rows"]
    outlined = sum(row["edges_auxiliary"] > row["edges_main"] for row in rows)
    heavier = sum(row["rms_auxiliary"] > row["rms_main"] for row in rows)
    alphas = [row["alpha"] for row in rows]
    return "\n".join(
        [
            f"![Fig. 6]({PLOTS}/fig6.png)\n",
            f"Mean magnitude over the channels in {BUILT_IN}, on {CREDIT}; each map over its own "
            "range, written below it. Shortcut and convolution before they are weighted.\n",
            "**The paper**: the quantised path holds main features, above all edges; the auxiliary "
            "path keeps texture and detail; the sum has both.\n",
            f"**Here**, over {SAMPLES}: alpha lies between {min(alphas):.2f} and "
            f"{max(alphas):.2f}; the weighted auxiliary path is the stronger one in {heavier} of "
            f"{len(rows)} convolutions. The map that follows the image's edges (Sobel, "
            f"correlation) more closely is the auxiliary path's in {outlined} of {len(rows)}, "
            f"the quantised one's in {len(rows) - outlined}. What the "
            f"network sees is NPR, which is edges already.\n",
            "<details><summary>every convolution</summary>\n",
            paths.table(results).markdown(),
            "</details>\n",
        ]
    )


@_measured("Fig. 7: the shifted logarithm", "fig7")
def fig7(results: Path, found: Line) -> str:
    """Activations before and after."""
    rows = found["rows"]
    count = len(rows)
    straighter = sum(abs(r["skewness_after"]) < abs(r["skewness_before"]) for r in rows)
    return "\n".join(
        [
            f"![Fig. 7]({PLOTS}/fig7.png)\n",
            f"Layer `{found['layer']}` of {BUILT_IN}, over {SAMPLES}; dashed: the quantizer's "
            "three thresholds. Before: what reaches the quantizer. The colour is logarithmic.\n",
            "**The paper**: nearly 80 % of a uniform quantizer's levels serve less than 5 % of the "
            "activations; after the logarithm they are balanced.\n",
            f"**Here**, uniform grids over smallest to largest value: levels (of 16) that together "
            f"serve less than 5 % are {_over(rows, 'idle_before', percent=True)} before (mean over "
            f"{count} layers) and {_over(rows, 'idle_after', percent=True)} after; fewer in "
            f"{_fewer(rows, 'idle')} layers. Entropy of four uniform codes: "
            f"{_over(rows, 'entropy_before')} bits before, {_over(rows, 'entropy_after')} after, "
            f"higher in {_more(rows, 'entropy')} layers; with the thresholds that were learned it "
            f"is {_over(rows, 'entropy_learned')}. The skewness is nearer to 0 after the logarithm "
            f"in {straighter} of {count} layers.\n",
            "<details><summary>every layer</summary>\n",
            logarithm.table(results).markdown(),
            "</details>\n",
        ]
    )


def _over(rows: list[Line], key: str, *, percent: bool = False) -> str:
    middle: Any = grids.mean([row[key] for row in rows])
    return f"{100 * middle:.0f} %" if percent else f"{middle:.2f}"


def _fewer(rows: list[Line], key: str) -> str:
    return f"{sum(row[f'{key}_after'] < row[f'{key}_before'] for row in rows)} of {len(rows)}"


def _more(rows: list[Line], key: str) -> str:
    return f"{sum(row[f'{key}_after'] > row[f'{key}_before'] for row in rows)} of {len(rows)}"
