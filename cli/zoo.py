"""``qmdd zoo``: the built-in checkpoints, and what is known of each."""

from __future__ import annotations

import click

from .options import debug_option, json_option
from .output import print_json, print_line, print_table


@click.command("zoo")
@click.argument("name", required=False)
@json_option
@debug_option
def command(name: str | None, as_json: bool) -> None:
    """List the built-in checkpoints, or print the model card of the one called NAME.

    Accuracy (at 0.5) and average precision are means over generators that were, and were not, in
    training, as measured on this very file. A name stands for its file in --checkpoint.

    \b
    qmdd zoo
    qmdd zoo resnet23-w2a2
    qmdd export --checkpoint resnet23-w2a2
    """
    from ..models.zoo import card_of, entries, entry_of
    from ..models.zoo_card import zoo_dict, zoo_table

    if as_json:
        found = zoo_dict(entry_of(name)) if name else [zoo_dict(entry) for entry in entries()]
        print_json(found)
    elif name:
        for line in card_of(name).splitlines():
            print_line(line)
    else:
        table = zoo_table(entries())
        print_table(table.columns, table.rows)
        for note in table.notes:
            print_line(note)
