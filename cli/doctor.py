"""``qmdd doctor``: what a machine lacks for running bundles, and what to do about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .deployment import config_option, hosts_of, python_option, stdin_is_terminal
from .errors import FAILURE
from .options import FILE, debug_option, json_option
from .output import print_json, print_line, print_table

if TYPE_CHECKING:
    from ..runtime.doctor import Diagnosis


@click.command("doctor")
@click.argument("bundle", required=False, type=FILE)
@click.option(
    "--target", metavar="NAME", help="What is to run here; default: what BUNDLE was exported for."
)
@click.option(
    "--host",
    metavar="[USER@]HOST[:DIR]",
    help="Look at a device over ssh, as qmdd deploy reaches it; nothing of qmdd needs to be there.",
)
@python_option
@config_option
@json_option
@debug_option
def command(
    bundle: Path | None,
    target: str | None,
    host: str | None,
    python: str,
    ssh_config: Path | None,
    as_json: bool,
) -> int:
    """Look at this machine, or at another one: is anything wrong with it, and what can it run.

    Each finding says how it stands (ok, note, warning, fault) and what to do. With BUNDLE or
    --target, what these need is looked for. The exit code is 1 if there is a fault.

    \b
    qmdd doctor
    qmdd doctor bundle
    qmdd doctor bundle --host jetson@192.168.1.20
    qmdd doctor --target orin-nano@6.2 --json
    """
    from ..exporter.target_needs import all_needs
    from ..runtime.bundle import Bundle
    from ..runtime.device.needs import bundle_needs
    from ..runtime.doctor import diagnose

    target = _full_name(target)
    needs = bundle_needs(Bundle.open(bundle)) if bundle is not None else None
    if host is None:
        facts, now = facts_here(bundle), None
    else:
        facts, now = _facts_there(host, python, ssh_config), time.time()
    found = diagnose(facts, bundle=needs, target=target, targets=all_needs(), now=now)
    if as_json:
        print_json(found.to_dict())
    else:
        print_diagnosis(found)
    return 0 if found.healthy else FAILURE


def facts_here(folder: Path | None) -> dict[str, Any]:
    """The facts of this machine; the disk is that of ``folder``."""
    from ..runtime.device.probe import collect

    return collect(None if folder is None else str(folder))


def _facts_there(host: str, python: str, ssh_config: Path | None) -> dict[str, Any]:
    """The facts of a device; the disk is that of the folder that qmdd deploy would take."""
    named = hosts_of([host], None)[0]

    from ..runtime.deploy.look import look_at

    return look_at(named, python=python, config=ssh_config, ask=stdin_is_terminal())


def _full_name(name: str | None) -> str | None:
    """A target's name with its JetPack.

    Raises:
        click.BadParameter: there is no such target.
    """
    if name is None:
        return None

    from ..exporter.errors import ExportError
    from ..exporter.targets import TARGETS, find_target

    try:
        return name if name in TARGETS else find_target(name).name
    except ExportError as error:
        raise click.BadParameter(str(error), param_hint="'--target'") from error


def print_diagnosis(found: Diagnosis) -> None:
    """The findings as a table, then what fits."""
    rows = [(one.state, one.what, one.found, one.do) for one in found.findings]
    print_table(("", "what", "found", "what to do"), rows, text=True)
    print_line("")
    for title, names in (
        ("runs here", [fit.target for fit in found.fits if fit.runs]),
        ("runs here, once deployed", [fit.target for fit in found.fits if fit.once_deployed]),
        (
            "is built here, runs elsewhere",
            [f.target for f in found.fits if f.builds and not f.runs],
        ),
    ):
        # Of a machine that has qmdd, nothing waits for a deployment.
        if names or "deployed" not in title:
            print_line(f"{title}: {', '.join(names) or 'nothing'}")
