"""``qmdd rollback``: back to what a device ran before."""

from __future__ import annotations

from pathlib import Path

import click

from .deployment import config_option, hosts_of, python_option, stdin_is_terminal
from .errors import on_interrupt
from .options import debug_option, json_option
from .output import print_json, print_line, print_table


@click.command("rollback")
@click.argument("host", metavar="[USER@]HOST[:DIR]")
@click.option("--to", metavar="ID", help="The release to return to; default: the one before.")
@click.option("--list", "list_", is_flag=True, help="List the releases there; change nothing.")
@python_option
@config_option
@json_option
@debug_option
def command(
    host: str,
    to: str | None,
    list_: bool,
    python: str,
    ssh_config: Path | None,
    as_json: bool,
) -> None:
    """Return HOST to the release that it ran before the last qmdd deploy.

    Its files are compared with their hashes first; then one link is replaced. A second rollback
    goes one release further back.

    \b
    qmdd rollback jetson@192.168.1.20
    qmdd rollback box:/opt/qmdd --list
    """
    if list_ and to is not None:
        raise click.UsageError("--list and --to exclude each other")
    named = hosts_of([host], None)[0]
    on_interrupt(lambda: "the device runs one release or the other, whole; --list shows which")

    from ..runtime.deploy.releases import history, rollback

    ask = stdin_is_terminal()
    if list_:
        current, known = history(named, python=python, config=ssh_config, ask=ask)
        if as_json:
            print_json({"host": named.label, "current": current, "releases": known})
            return
        rows = [
            (
                release,
                f"{about.get('arch')}, {about.get('bits')} bits, {about.get('target')}",
                about.get("previous") or "-",
                "current" if release == current else "",
            )
            for release, about in known.items()
        ]
        print_table(("release", "bundle", "before it", ""), rows, text=True)
        return
    done = rollback(named, to=to, python=python, config=ssh_config, ask=ask)
    if as_json:
        print_json(done.to_dict())
    else:
        print_line(f"{named.label}: runs {done.release} again, instead of {done.instead_of}")
