"""``qmdd targets``: what a model can be exported for, and what is claimed for each."""

from __future__ import annotations

import click

from .options import debug_option, json_option
from .output import print_json, print_line, print_table


@click.command("targets")
@click.argument("name", required=False)
@json_option
@debug_option
def command(name: str | None, as_json: bool) -> None:
    """List the targets of qmdd export, or all that is known of the one called NAME.

    A Jetson is called by its name, or by its name and JetPack: orin-nano, orin-nano@5.1.

    \b
    qmdd targets
    qmdd targets orin-nano
    qmdd export --bits 2 --target orin-nano
    """
    from ..exporter.errors import ExportError
    from ..exporter.target_report import all_targets, target_dict, target_lines, target_table
    from ..exporter.targets import TARGETS, find_target

    if name:
        try:
            target = TARGETS[name] if name in TARGETS else find_target(name)
        except ExportError as error:
            raise click.BadParameter(str(error), param_hint="'NAME'") from error
        if as_json:
            print_json(target_dict(target))
            return
        for line in target_lines(target):
            print_line(line)
    elif as_json:
        print_json([target_dict(target) for target in all_targets()])
    else:
        table = target_table(all_targets())
        print_table(table.columns, table.rows, text=True)
        print_line("")
        for note in table.notes:
            print_line(note)
