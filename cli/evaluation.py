"""How an evaluation is printed, as a table or as CSV; ``qmdd eval`` and ``qmdd train`` share it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import click

from .output import print_line, print_table

_COLUMNS = ("generator", "images", "Acc %", "AP %", "real %", "fake %")
_MEASURES = ("acc", "ap", "real_acc", "fake_acc")


def print_evaluation(data: Mapping[str, Any]) -> None:
    """Generators, seen ones first, each group with its mean below it; then the other means."""
    rows, means = list(data["generators"].values()), dict(data["means"])
    table: list[tuple[str, ...]] = []
    for group in ("seen", "unseen"):
        if group in means:
            table.extend(_cells(row) for row in rows if row["group"] == group)
            table.extend([_cells(means.pop(group)), ("",) * len(_COLUMNS)])
            rows = [row for row in rows if row["group"] != group]
    table.extend(_cells(row) for row in rows)
    table.extend(_cells(mean) for mean in means.values())
    print_table(_COLUMNS, table)
    print_line("")
    print_line(
        f"threshold {data['threshold']:g}; in brackets 95 % confidence intervals "
        f"({data['interval']['accuracy']}; AP and means {data['interval']['ap']})"
    )
    for note in data["notes"]:
        print_line(note)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['images']:,}",
        *(_sure(row, measure) for measure in ("acc", "ap")),
        *(_percent(row[measure]) for measure in ("real_acc", "fake_acc")),
    )


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _sure(row: Mapping[str, Any], measure: str) -> str:
    """The value with its interval."""
    value = _percent(row[measure])
    if value == "-":
        return value
    low, high = (_percent(end) for end in row[f"{measure}_ci"])
    return f"{value} [{low}, {high}]"


def print_evaluation_csv(data: Mapping[str, Any]) -> None:
    """A line for each generator and each mean; shares of 1, empty where nothing is measured."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    ends = [f"{measure}{end}" for measure in _MEASURES for end in ("", "_low", "_high")]
    table.writerow(("kind", "generator", "name", "group", "images", "reals", "fakes", *ends))
    for kind, part in (("generator", "generators"), ("mean", "means")):
        for key, row in data[part].items():
            plain = (row["name"], row["group"], row["images"], row["reals"], row["fakes"])
            table.writerow((kind, key, *plain, *_numbers(row)))
    click.echo(text.getvalue().encode("utf-8", "surrogateescape"), nl=False)


def _numbers(row: Mapping[str, Any]) -> Iterator[object]:
    for measure in _MEASURES:
        for value in (row[measure], *row[f"{measure}_ci"]):
            yield None if math.isnan(value) else value


def tell_left_out(skipped: list[dict[str, str]], outside: list[str]) -> None:
    """On stderr, how many images were not measured: every unusable one named, of others the first.

    Args:
        skipped: unusable ones, each with the ``reason`` that names it.
        outside: those in no class folder.
    """
    from .errors import printable

    if skipped:
        click.echo(f"qmdd: left out {_count(skipped)} that cannot be used:", err=True)
        for item in skipped:
            click.echo(printable(f"  {item['reason']}"), err=True)
    if outside:
        said = f"qmdd: left out {_count(outside)} in no class folder, the first: {outside[0]}"
        click.echo(printable(said), err=True)


def _count(images: Sized) -> str:
    return "1 image" if len(images) == 1 else f"{len(images):,} images"
