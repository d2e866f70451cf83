"""``qmdd stats``: parameters, multiply-adds, OPs and storage, beside the paper's Table 4."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    ARCHITECTURES,
    DEFAULT_BITS,
    FILE,
    WIDTHS,
    bits_option,
    checkpoint_or_name,
    debug_option,
    json_option,
    module_option,
    topology_options,
)
from .output import Report, print_json, print_line, print_table, progress, stdout_for_results

if TYPE_CHECKING:
    from ..models.efficiency import NetworkCost
    from ..models.tables import Table

#: The published networks are counted on images of this side.
SIDE = 256


@click.command("stats")
@click.option(
    "--arch",
    type=click.Choice([*ARCHITECTURES, "all"]),
    help="Backbone, or all of them; default: all.",
)
@bits_option(f"every width; with one --arch {DEFAULT_BITS}")
@topology_options
@click.option(
    "--side",
    type=click.IntRange(32, 4096),
    default=SIDE,
    show_default=True,
    metavar="N",
    help="Side of the image for which operations are counted.",
)
@click.option(
    "--checkpoint",
    type=FILE,
    callback=checkpoint_or_name,
    metavar="FILE|NAME",
    help="Count this checkpoint's network, and its file.",
)
@click.option(
    "--bundle", type=FILE, metavar="DIR", help="Count this bundle's network, and its files."
)
@module_option
@click.option("--layers", is_flag=True, help="One row a layer, for several networks too.")
@click.option("--table4", "compared", is_flag=True, help="Compare with the paper's Table 4 only.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print the result as CSV.")
@debug_option
def command(
    arch: str | None,
    bits: int | None,
    side: int,
    checkpoint: Path | None,
    bundle: Path | None,
    module: str | None,
    layers: bool,
    compared: bool,
    as_json: bool,
    as_csv: bool,
    **topology: Any,
) -> None:
    """Count parameters, multiply-adds, OPs and stored bytes, per layer and in total.

    OPs are counted as in the paper's Table 4: a multiply-add of k bits counts k/32. Storage is
    theory (weights at their own width, everything else in float32); with --checkpoint or --bundle
    the real files stand beside it.

    \b
    qmdd stats
    qmdd stats --arch resnet23 --bits 3
    qmdd stats --bundle out/resnet23-w2a2-onnx
    """
    asked = {name: value for name, value in topology.items() if value is not None}
    files = [given for given in (checkpoint, bundle, module) if given is not None]
    if len(files) > 1 or (files and (arch, bits, asked) != (None, None, {})):
        raise click.UsageError(
            "--checkpoint, --bundle and --module each bring their own network; give one of them, "
            "and none of the options that build one"
        )
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if compared:
        if files or layers or as_csv or (arch, bits, asked, side) != (None, None, {}, SIDE):
            raise click.UsageError(
                "--table4 counts its own networks; leave the other options but --json out"
            )
        _print_table4(as_json)
        return

    from ..models import efficiency_report as tables

    with stdout_for_results(), progress() as report:
        if files:
            costs, sizes = _of_file(checkpoint, bundle, module, side)
        else:
            costs, sizes = _built_in(arch, bits, side, asked, report), {}
    by_layer = layers or len(costs) == 1
    if as_json:
        print_json([tables.network_dict(cost, sizes, layers=by_layer) for cost in costs])
    elif as_csv:
        _print_csv(costs, by_layer)
    elif by_layer:
        for cost in costs:
            _print(tables.layer_table(cost))
            _print(tables.storage_items(cost, sizes))
    else:
        _print(tables.summary_table(costs))


def _built_in(
    arch: str | None, bits: int | None, side: int, topology: dict[str, Any], report: Report
) -> list[NetworkCost]:
    from ..models.efficiency import costs_by_width

    one = arch not in (None, "all")
    names = [str(arch)] if one else list(ARCHITECTURES)
    widths = [bits or DEFAULT_BITS] if one or bits else [int(width) for width in WIDTHS]
    found: list[NetworkCost] = []
    for name in names:
        for cost in costs_by_width(name, widths, side, **topology):
            found.append(cost)
            report(f"counting {name}", len(found), len(names) * len(widths))
    return found


def _of_file(
    checkpoint: Path | None, bundle: Path | None, module: str | None, side: int
) -> tuple[list[NetworkCost], dict[str, int]]:
    from ..models.efficiency import config_cost, config_of_manifest, network_cost

    if checkpoint is not None:
        from ..models.checkpoint import Checkpoint

        held = Checkpoint(checkpoint)
        return [config_cost(held.config, side)], {checkpoint.name: checkpoint.stat().st_size}
    if module is not None:
        from ..exporter.source import source_from_module

        source = source_from_module(module)
        return [network_cost(source.network, source.arch, source.bits, side)], {}
    assert bundle is not None  # noqa: S101 - one of the three is given

    from ..runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    config = config_of_manifest(opened.manifest, bundle)
    sizes = {name: entry["bytes"] for name, entry in opened.manifest["files"].items()}
    return [config_cost(config, side)], sizes


def _print_table4(as_json: bool) -> None:
    from ..models.table4_report import table4

    with stdout_for_results():
        tables = table4()
    if as_json:
        print_json([dataclasses.asdict(table) for table in tables])
    else:
        for table in tables:
            _print(table)


def _print(table: Table) -> None:
    print_line(table.title)
    print_line("")
    print_table(table.columns, table.rows)
    print_line("")
    for note in table.notes:
        print_line(note)
    if table.notes:
        print_line("")


def _print_csv(costs: list[NetworkCost], by_layer: bool) -> None:
    """Plain numbers, one row a network or a layer."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = ("parameters", "multiply_adds", "ops", "bytes")
    if by_layer:
        own = ("name", "kind", "weight_bits", "code_bits", *keys)
        writer.writerow(("network", "bits", "side", "layer", *own[1:]))
        for cost in costs:
            for layer in cost.layers:
                values = (getattr(layer, key) for key in own)
                writer.writerow((cost.name, cost.bits, cost.side, *values))
    else:
        writer.writerow(("network", "bits", "side", *keys))
        for cost in costs:
            values = (getattr(cost, key) for key in keys)
            writer.writerow((cost.name, cost.bits, cost.side, *values))
    click.echo(out.getvalue(), nl=False)
