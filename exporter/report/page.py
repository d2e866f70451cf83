"""The report as one HTML file: no network, no script; light, dark, on a phone and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import plots
from .gather import Gathered
from .plots import Bar

TEMPLATES = Path(__file__).parent / "templates"


def page(found: Gathered) -> str:
    """The file's text. Nothing that a bundle says becomes markup."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = size_in_words
    environment.filters["count"] = lambda value: "-" if value is None else f"{value:,}"
    environment.filters["share"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["short"] = lambda value: "-" if value is None else f"{value:.3g}"
    environment.filters["score"] = lambda value: "-" if value is None else f"{value:.4f}"
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        **found.data,
        pictures=found.pictures,
        plots=_plots(found.data),
        style=Markup(style),  # nosec B704 # noqa: S704 - a file of ours, and nothing else
    )


def size_in_words(count: int | None) -> str:
    """Bytes for people, in powers of ten as the paper has them.

    >>> size_in_words(4_159_905)
    '4.16 MB'
    """
    if count is None:
        return "-"
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _plots(data: dict[str, Any]) -> dict[str, Any]:
    """All pictures that are drawn from data, by the part of the page and the layer's number."""
    quantizers = data["quantizers"]["layers"]
    return {
        "size": plots.bar_chart(
            "Bytes from full precision to what is shipped",
            [_size_bar(step) for step in data["size"]["steps"]],
        ),
        "before": [
            plots.step_plot(
                f"{layer['layer']}: step function of the quantizer over what it sees",
                layer["before"],
                layer["table"],
            )
            for layer in quantizers
        ],
        "after": [
            layer["after"]
            and plots.channels_plot(
                f"{layer['layer']}: folded tables of {layer['after']['channels']} channels over "
                "what they see",
                layer["after"],
                len(layer["table"]),
            )
            for layer in quantizers
        ],
        "golden": [_shares(layer) for layer in data["quantizers"]["golden"]],
        "weights": [
            plots.code_bars(f"{w['layer']}: shares of the weight codes", w["codes"], w["counts"])
            for w in data["weights"]["layers"]
        ],
        "latency": _latency(data["speed"]["bench"]),
    }


def _size_bar(step: dict[str, Any]) -> Bar:
    ratio = f", {step['ratio']:.1f} times smaller" if (step["ratio"] or 0) > 1.05 else ""
    return Bar(step["what"], step["bytes"], f"{size_in_words(step['bytes'])}{ratio}")


def _shares(layer: dict[str, Any]) -> Markup:
    shares = layer["shares"]
    title = f"{layer['layer']}: shares of the activation codes"
    return plots.code_bars(title, range(len(shares)), shares)


def _latency(bench: dict[str, Any] | None) -> Markup | None:
    if not bench or not bench["rows"]:
        return None
    bars = [
        Bar(
            f"{row['name']}, {row['threads']} thr., batch {row['batch']}",
            row["median_ms"] / row["batch"],
            f"{row['median_ms'] / row['batch']:.2f} ms an image",
            row["p99_ms"] / row["batch"] if row["p99_ms"] is not None else None,
            row["twin"],
        )
        for row in bench["rows"]
        if row["batch"] > 0
    ]
    return plots.bar_chart("Milliseconds an image: median, whisker to the 99th percentile", bars)
