"""Table 4 beside ours, in words and tables; every number in them is computed here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .conventions import CONVENTIONS
from .quantizers import FULL_PRECISION
from .table4 import HEADLINE, TABLE4, Compared, compare, nearest
from .tables import Table

_WORDS = {
    "element-wise": "the float operations outside the convolutions",
    "downsampling": "the three downsampling convolutions in float",
    "stem": "the stem's weights in float",
    "only weights": "nothing stored but weights",
}


def table4() -> list[Table]:
    """Everything: operations, storage, conventions, and the abstract's two ratios."""
    rows = [compare(row) for row in TABLE4]
    last = convention_table(rows)
    last.notes.append(headline(rows))
    return [ops_table(rows), storage_table(rows), last]


def ops_table(rows: Sequence[Compared]) -> Table:
    """OPs in G, row by row."""
    terms = ("element-wise", "downsampling")
    cells = []
    for row in rows:
        _, total = row.ops_sum()
        cells.append(
            (
                row.row.name,
                printed(row.row.giga, row.row.half),
                f"{row.ops:.3f}",
                *(_signed(row.ops_terms.get(term)) for term in terms),
                f"{total:.3f}",
                f"{row.row.giga - total:+.3f}",
            )
        )
    columns = ("OPs in G", "paper", "as built", *terms, "nearest sum", "left over")
    return Table("Operations", columns, cells, [explain_ops(row) for row in rows])


def storage_table(rows: Sequence[Compared]) -> Table:
    """Storage in MB (10^6 bytes), row by row."""
    terms = ("only weights", "downsampling", "stem")
    cells = []
    for row in rows:
        _, total = row.mb_sum()
        cells.append(
            (
                row.row.name,
                printed(row.row.mb, row.row.mb_half),
                f"{row.mb:.2f}",
                *(_signed(row.mb_terms.get(term), 2) for term in terms),
                f"{total:.2f}",
                f"{row.row.mb - total:+.2f}",
            )
        )
    columns = ("storage in MB", "paper", "as built", *terms, "nearest sum", "left over")
    return Table("Storage", columns, cells, [explain_storage(row) for row in rows])


def convention_table(rows: Sequence[Compared]) -> Table:
    """The low-bit rows as built, by each convention, and what that does to the slope."""
    low = [row for row in rows if row.row.bits != FULL_PRECISION]
    wide, narrow = (next(r for r in low if r.row.name == f"Ours, {k} bits") for k in (3, 2))
    slope = wide.row.giga - narrow.row.giga
    columns = ("convention", *(row.row.name for row in low), "a bit more", "farthest off")
    cells = [("paper", *(printed(r.row.giga, r.row.half) for r in low), f"{slope:.2f}", "")]
    for convention, float_stem in itertools.product(CONVENTIONS.values(), (False, True)):
        values = {r.row.name: r.ops_by(convention, float_stem=float_stem) for r in low}
        off = max((values[r.row.name] - r.row.giga for r in low), key=abs)
        cells.append(
            (
                f"{convention.formula}, {'float' if float_stem else '8-bit'} stem",
                *(f"{value:.3f}" for value in values.values()),
                f"{values[wide.row.name] - values[narrow.row.name]:.3f}",
                f"{off:+.3f}",
            )
        )
    rounding = wide.row.half + narrow.row.half
    fits = [
        convention.formula
        for convention in CONVENTIONS.values()
        if abs(wide.ops_by(convention) - narrow.ops_by(convention) - slope) <= rounding
    ]
    note = (
        f"From 2 to 3 bits the paper's own method gains {slope:.2f} G, with the rounding "
        f"{slope - rounding:.2f} to {slope + rounding:.2f}. What does not depend on the width "
        f"cancels in that difference. Of the three conventions this fits: {', '.join(fits)}."
    )
    return Table("Conventions", columns, cells, [note])


def headline(rows: Sequence[Compared]) -> str:
    """The abstract's two ratios beside ours."""
    full = next(row for row in rows if row.row.method == "FP baseline")
    small = next(row for row in rows if row.row.name == "Ours, 2 bits")
    return (
        f"The headline is Table 4's own rounded entries divided: {full.row.giga} / "
        f"{small.row.giga} = {full.row.giga / small.row.giga:.1f} (the paper: {HEADLINE[0]}) and "
        f"{full.row.mb:.0f} / {small.row.mb} = {full.row.mb / small.row.mb:.1f} ({HEADLINE[1]}). "
        f"Ours as built: {full.ops:.3f} / {small.ops:.3f} = {full.ops / small.ops:.1f} and "
        f"{full.mb:.2f} / {small.mb:.2f} = {full.mb / small.mb:.1f}; with the nearest sums of the "
        f"2-bit row: {full.ops / small.ops_sum()[1]:.1f} and {full.mb / small.mb_sum()[1]:.1f}."
    )


def explain_ops(row: Compared) -> str:
    """One sentence: what the paper's OPs are made of, and what is left over."""
    return _explain(row.row.name, row.row.giga, row.row.half, row.ops, row.ops_terms, "G", 3)


def explain_storage(row: Compared) -> str:
    """One sentence: what the paper's storage is made of, and what is left over."""
    text = _explain(row.row.name, row.row.mb, row.row.mb_half, row.mb, row.mb_terms, "MB", 2)
    if row.mb_terms:
        return text
    return (
        f"{text[:-1]}; in units of 2^20 bytes ours is {row.mb * 1e6 / 2**20:.1f}, so the paper's "
        "lies between the two, and its layers are not spelt out."
    )


def _explain(
    name: str,
    paper: float,
    half: float,
    built: float,
    terms: dict[str, float],
    unit: str,
    digits: int,
) -> str:
    chosen, total = nearest(built, terms, paper)
    if abs(paper - built) <= half:
        chosen, total = (), built
    text = f"{name}: {built:.{digits}f} {unit} as built"
    if chosen:
        parts = [f"{_WORDS[term]} ({terms[term]:+.{digits}f})" for term in chosen]
        text += f"; with {' and '.join(parts)} {total:.{digits}f}"
    left = paper - total
    if abs(left) <= half:
        return f"{text}, which is the paper's {printed(paper, half)} when rounded."
    side = "short of" if left > 0 else "above"
    return (
        f"{text}, {abs(left):.{digits}f} {side} the paper's {printed(paper, half)} "
        f"({abs(left) / paper:.1%}; its rounding hides up to {half:g})."
    )


def printed(value: float, half: float) -> str:
    """``value`` with as many digits as the paper prints."""
    return f"{value:.{max(0, len(f'{half:.4f}'.rstrip('0').partition('.')[2]) - 1)}f}"


def _signed(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:+.{digits}f}"
