"""``docs/experiments.md``, written from the results: no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import grids, looks
from .results import read_cells
from .tables import Table

#: From the document to the plots.
PLOTS = "../experiments/figures"

HEAD = """# The paper's ablations on forensics-mini

Written by `python experiments/report.py` from `experiments/results/`; do not edit it by hand. How
to run the experiments: [experiments/README.md](../experiments/README.md).

Everything here is a small stand-in for what the paper did, on a small data set of our own
([what it is](../models/zoo_data/resnet23-w2a2.md#data)); no number may be compared with one that is
published. What can be compared is the direction: which step helps, and which does not. Results
stand as they fell.
"""

SET_UP = """Trained cells (Fig. 2, 8b, 9): ResNet-23 at {width:g} of its width, {crop}-pixel crops,
{batch} a step, AdamW at {rate:g} with a cosine to 0; {first} epochs in full precision, shared by
the cells of one topology and seed, then {second} epochs at the cell's own width; batch-norm
statistics taken anew at the end. Scores are of the evaluation on integer codes, on `test/`, whose
four seen and four unseen generators have 40 or 50 images a class each; **all**, **seen** and
**unseen** are means over generators, at threshold 0.5 for Acc. The lengths were fixed by a pilot on
the validation images; nothing was changed after a cell had been scored on `test/`.

Tables give the *mean over the seeds (smallest .. largest)*, in percent; differences are taken seed
by seed, then averaged, in points. In the plots a bar is that mean, each dot is one seed, and the
line runs from the smallest to the largest. Chance is 50. One image is about 0.3 points of a mean
over seen or unseen generators, and so few seeds show a direction, no more. Done: {cells} cells of
{seeds} seeds, {hours:.1f} hours of one core.
"""


def document(results: Path) -> str:
    """The whole text."""
    parts = [HEAD, *_set_up(results), *_headline(results)]
    parts += [section(results) for section in SECTIONS]
    return "\n".join(parts)


def _set_up(results: Path) -> list[str]:
    lines = list(read_cells(results).values())
    if not lines:
        return []
    first, second = (lines[0][key]["stages"][0] for key in ("start", "recipe"))
    starts = {line["recipe"]["start"]: line["start_seconds"] for line in lines}
    seconds = sum(line["seconds"] for line in lines) + sum(starts.values())
    return [
        SET_UP.format(
            width=lines[0]["recipe"]["width"],
            crop=second["crop"],
            batch=second["batch"],
            rate=second["lr"],
            first=first["epochs"],
            second=second["epochs"],
            cells=len(lines),
            seeds=len({line["seed"] for line in lines}),
            hours=seconds / 3600,
        )
    ]


def stand_in(results: Path) -> str:
    """What the captions call the network of the trained cells."""
    widths = {line["recipe"]["width"] for line in read_cells(results).values()}
    return f"the stand-in of {' or '.join(f'{w:g}' for w in sorted(widths))} of ResNet-23's width"


def verdict(deltas: list[float]) -> str:
    """What the signs of ``deltas`` say, seed by seed."""
    if not deltas:
        return "not measured"
    middle = grids.mean(deltas)
    word = "higher" if middle > 0 else "lower" if middle < 0 else "the same"
    if middle and len(deltas) > 1:
        same = sum((delta > 0) == (middle > 0) and delta != 0 for delta in deltas)
        where = "in every seed" if same == len(deltas) else f"in {same} of {len(deltas)} seeds"
        return f"{word} on average, {where}" if same < len(deltas) else f"{word} {where}"
    return word


def _pair(figure: str, results: Path, upper: str, lower: str) -> Callable[[str, str], list[float]]:
    found = {entry.bar.label: entry for entry in grids.series(figure, results)}
    return lambda group, metric: grids.differences(found[upper], found[lower], group, metric)


def _headline(results: Path) -> list[str]:
    lower, npr, *_, upper = (bar.label for bar in grids.FIG9)
    deltas = _pair("fig9", results, upper, lower)
    acc, ap = deltas("all", "acc"), deltas("all", "ap")
    if not acc:
        return []
    text = (
        f"At 2 bits, SLR + CQB + NPR against plain N2UQ on RGB, over all eight generators and "
        f"{len(acc)} seeds: Acc **{grids.spread(acc, sign=True)}** points ({verdict(acc)}), AP "
        f"{grids.spread(ap, sign=True)} ({verdict(ap)})."
    )
    alone = _pair("fig9", results, npr, lower)("all", "acc")
    rest = _pair("fig9", results, upper, npr)("all", "acc")
    if alone and rest:
        text += (
            f" Of that, NPR alone is Acc {grids.spread(alone, sign=True)}; CQB and SLR together "
            f"add {grids.spread(rest, sign=True)} to it ({verdict(rest)})."
        )
    return [f"## In one line\n\n{text}\n"]


def claims(figure: str, results: Path, rows: list[tuple[str, str, str, str]]) -> Table:
    """Claims of the paper beside what came out: ``(claim's step, paper, upper, lower)``."""
    out = []
    for step, paper, upper, lower in rows:
        deltas = _pair(figure, results, upper, lower)
        for metric in grids.METRICS:
            found = deltas("all", metric)
            said = paper if metric == "acc" else ""
            title = f"{step}, {grids.TITLES[metric]}"
            out.append((title, said, grids.spread(found, sign=True), verdict(found)))
    return Table(("step", "paper, Acc", "here, all generators", "which is"), out)


def _section(
    title: str, figure: str, caption: str, results: Path, *, claim: str, tables: list[Table]
) -> str:
    if not any(entry.lines for entry in grids.series(figure, results)):
        return f"## {title}\n\nNot run yet. {looks.AGAIN}\n"
    absent = [
        f"{label} (seed {', '.join(map(str, seeds))})"
        for label, seeds in grids.missing(figure, results)
    ]
    if absent:
        caption += f"\n\n**Not all cells are in**; missing: {'; '.join(absent)}. {looks.AGAIN}"
    body = "\n".join(table.markdown() for table in tables)
    picture = f"![{title}]({PLOTS}/{figure}.svg)"
    return f"## {title}\n\n{picture}\n\n{caption}\n\n**The paper**: {claim}\n\n{body}"


def fig9(results: Path) -> str:
    """The ablation."""
    labels = [bar.label for bar in grids.FIG9]
    rows = [
        ("RGB to NPR", "+7.4 (AP +9.3)", labels[1], labels[0]),
        ("CQB added", "+7.5", labels[2], labels[1]),
        ("SLR added", "+2.1", labels[3], labels[2]),
        ("all three", "+17.0 (their sum)", labels[3], labels[0]),
    ]
    return _section(
        "Fig. 9: NPR, CQB, SLR",
        "fig9",
        f"2-bit weights and activations, N2UQ, {stand_in(results)}. Each step adds to the one "
        "before it.",
        results,
        claim="every step helps; mean over eight GANs of ForenSynths.",
        tables=[
            claims("fig9", results, rows),
            grids.table("fig9", results),
            grids.generator_table("fig9", results),
        ],
    )


def fig8b(results: Path) -> str:
    """SLR over three quantizers."""
    rows = [
        (f"SLR over {name}", "higher", f"{name} + SLR", name) for name in ("MinMax", "LSQ", "N2UQ")
    ]
    return _section(
        "Fig. 8b: SLR over three quantizers",
        "fig8b",
        f"2 bits, NPR with CQB, {stand_in(results)}; weights and activations by the same "
        "quantizer, SLR around the activations' (the paper does not say at how many bits).",
        results,
        claim='SLR "consistently achieves stable improvements across all quantizers".',
        tables=[claims("fig8b", results, rows), grids.table("fig8b", results)],
    )


def fig2(results: Path) -> str:
    """Bit widths."""
    return _section(
        "Fig. 2: bit widths",
        "fig2",
        f"Neither CQB nor SLR, {stand_in(results)}; LSQ at 8, 4 and 2 bits, ReActNet's "
        "quantizers at 1; full precision is trained as long as the others. Above on RGB, as in the "
        "paper; below on NPR.",
        results,
        claim='quantised models "maintain comparable accuracy", above all on the seen generator.',
        tables=[grids.difference_table("fig2", results), grids.table("fig2", results)],
    )


SECTIONS: tuple[Callable[[Path], str], ...] = (
    fig9,
    fig8b,
    fig2,
    looks.fig3,
    looks.fig4,
    looks.fig6,
    looks.fig7,
)
