"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from .errors import printable

Report = Callable[[str, int, int], None]

#: Columns of a table that no terminal bounds: wide enough that nothing is cut off.
_WIDE = 160


def print_json(data: object) -> None:
    """``data`` as JSON; what is no number there (NaN, infinity) becomes null."""
    click.echo(json.dumps(_plain(data), indent=2, allow_nan=False))


def print_json_line(data: object) -> None:
    """The same on one line."""
    click.echo(json.dumps(_plain(data), allow_nan=False))


@contextlib.contextmanager
def json_array() -> Iterator[Callable[[object], None]]:
    """Yield a function that prints one more element of an array, in the form of `print_json`.

    However the block ends, the array is closed: what has been printed is JSON.
    """
    count = 0

    def add(data: object) -> None:
        nonlocal count
        text = json.dumps(_plain(data), indent=2, allow_nan=False).replace("\n", "\n  ")
        # In one piece: an interruption finds it printed, or not.
        click.echo(f"{',' if count else ''}\n  {text}", nl=False)
        count += 1

    try:
        click.echo("[", nl=False)
        yield add
    finally:
        click.echo("\n]" if count else "]")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, text: bool = False
) -> None:
    """A table: the first column to the left, the others, numbers, to the right; texts to the left.

    Args:
        columns: their titles.
        rows: their cells.
        text: whether all columns hold texts.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = Console(markup=False, highlight=False, emoji=False)
    if not out.is_terminal:
        out = Console(markup=False, highlight=False, emoji=False, width=_WIDE)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index and not text else "left", overflow="fold")
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    out.print(table)


def print_line(text: str) -> None:
    """One line of text on stdout, nothing in it able to steer the terminal."""
    click.echo(printable(text))


def stdout_is_terminal() -> bool:
    """Whether a person reads stdout as it comes."""
    return sys.stdout is not None and sys.stdout.isatty()


@contextlib.contextmanager
def progress(*, shown: bool = True) -> Iterator[Report]:
    """Yield ``report(what, done, total)``: a bar on stderr, silent where that is no terminal.

    A total of 0 means that nobody knows it.
    """
    if shown and sys.stderr is not None and sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield lambda _what, _done, _total: None


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send what libraries print while they work to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed
    from rich.progress import TimeRemainingColumn as Remaining

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), Elapsed(), Remaining())
    # rich would send our results to its own console, stderr, while the bar is shown.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
    ) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total or None
        )


def print_parity(tiers: Sequence[Mapping[str, Any]], *, layers: bool = False) -> None:
    """The tiers of a parity check, and each of their layers if asked."""
    columns = ("tier", "images", "codes compared", "wrong codes", "max logit diff", "flipped")
    print_table(
        columns,
        [
            (
                _tier_name(tier),
                f"{tier['images']:,}",
                f"{tier['codes_compared']:,}",
                f"{tier['wrong_codes']:,}",
                f"{tier['max_abs_logit_diff']:.1e}",
                f"{tier['flipped_verdicts']:,}",
            )
            for tier in tiers
        ],
    )
    for tier in tiers:
        for line in tier.get("fallbacks", ()):
            print_line(f"not as planned, {_tier_name(tier)}: {line}")
        if tier.get("code_budget"):
            print_line(
                f"{_tier_name(tier)}: up to {tier['code_budget']:.3%} of the codes and "
                f"{tier['logit_bar']:g} of a logit may differ"
            )
    shown = [tier for tier in tiers if tier["layers"]]  # an engine as deployed shows no codes
    if layers and shown:
        names = ("layer", "codes", *(f"wrong, {tier['tier']}" for tier in shown))
        each = zip(*(tier["layers"] for tier in shown), strict=True)
        rows = [
            (same[0]["layer"], f"{same[0]['codes']:,}", *(f"{layer['wrong']:,}" for layer in same))
            for same in each
        ]
        print_line("")
        print_table(names, rows)


def _tier_name(tier: Mapping[str, Any]) -> str:
    """A tier, and what ran it where that is not ONNX Runtime."""
    name, runtime = str(tier["tier"]), tier.get("runtime", "onnxruntime")
    return name if runtime in ("onnxruntime", name) else f"{name} ({runtime})"


def missed_parity(tiers: Sequence[Mapping[str, Any]]) -> str:
    """What was missed, in words, for the line that ends a command whose parity failed."""
    wrong = sum(tier["wrong_codes"] for tier in tiers)
    total = sum(tier["codes_compared"] for tier in tiers)
    flipped = sum(tier["flipped_verdicts"] for tier in tiers)
    largest = max((tier["max_abs_logit_diff"] for tier in tiers), default=math.nan)
    floats = len({line for tier in tiers for line in tier.get("fallbacks", ())})
    return (
        f"{wrong:,} of {total:,} codes wrong, largest logit difference {largest:.1e}, "
        f"{flipped:,} verdicts flipped" + (f", {floats:,} layers not as planned" if floats else "")
    )
