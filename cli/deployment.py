"""What ``qmdd deploy`` and ``qmdd rollback`` share: hosts, options, and how results are shown."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import one_line, printable
from .options import F
from .output import print_json, print_line

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle
    from ..runtime.deploy.hosts import Host
    from ..runtime.deploy.options import Options
    from ..runtime.deploy.outcome import Outcome
    from ..runtime.device.needs import TargetNeeds

#: Of what a device tells, so many lines are shown.
_MOST_LINES = 64


def python_option(command: F) -> F:
    """``--python NAME``: the device's interpreter."""
    return click.option(
        "--python",
        default="python3",
        show_default=True,
        metavar="NAME",
        help="The device's Python, 3.10 or newer.",
    )(command)


def config_option(command: F) -> F:
    """``--ssh-config FILE``."""
    return click.option(
        "--ssh-config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Configuration for ssh in place of your own.",
    )(command)


def stdin_is_terminal() -> bool:
    """Whether there is somebody who could be asked for a password."""
    return sys.stdin is not None and sys.stdin.isatty()


def hosts_of(named: Sequence[str], list_: Path | None) -> list[Host]:
    """The hosts that are named, and those of the list.

    Raises:
        click.UsageError: none, one twice, or something that is no host.
    """
    from ..runtime.deploy.hosts import Host, distinct, read_hosts
    from ..runtime.errors import DeployError

    try:
        found = distinct(
            [*(Host.parse(text) for text in named), *(read_hosts(list_) if list_ else ())]
        )
    except DeployError as error:
        raise click.UsageError(one_line(str(error))) from error
    if not found:
        raise click.UsageError("name a host, or a list of them with --hosts")
    return found


def print_outcome(outcome: Outcome) -> None:
    """One device's result: a line on stdout if it went well, on stderr if it did not."""
    name = outcome.host.label
    for warning in outcome.warnings:
        click.echo(printable(f"qmdd: warning: {name}: {warning}"), err=True)
    if not outcome.passed:
        step = f"{outcome.step}: " if outcome.step else ""
        log = f"; log: {outcome.log}" if outcome.log else ""
        kept = " (what ran there runs on)" if outcome.previous else ""
        click.echo(printable(f"qmdd: error: {name}: {step}{outcome.error}{kept}{log}"), err=True)
        return
    copied = f"{outcome.files:,} files, {outcome.copied:,} bytes copied"
    print_line(
        f"{name}: {outcome.state} {outcome.release} in {sum(outcome.seconds.values()):.1f} s "
        f"({copied}, {outcome.present:,} there already)"
    )
    for line in (*_verified(outcome.verify or {}), *_measured(outcome.bench or {})):
        print_line(f"  {line}")


def _verified(found: dict[str, Any]) -> list[str]:
    from ..runtime.device.facts import Facts

    lines = []
    for tier in Facts(found).objects("parity")[:_MOST_LINES]:
        names = ("wrong_codes", "codes_compared", "flipped_verdicts", "images")
        wrong, compared, flipped, images = (_count(tier.number(name)) for name in names)
        lines.append(
            f"{tier.text('tier')} ({tier.text('runtime')}): {wrong} of {compared} codes wrong, "
            f"{flipped} of {images} verdicts flipped"
        )
    return lines


def _count(number: float | None) -> str:
    """A number that a device told, or a question mark."""
    return "?" if number is None else f"{number:,.0f}"


def _measured(found: dict[str, Any]) -> list[str]:
    """Latencies that ``qmdd bench`` measured there, by number of threads."""
    from ..runtime.device.facts import Facts, mebibytes

    lines = []
    for setting in Facts(found).objects("configurations")[:_MOST_LINES]:
        threads = setting.number("threads")
        for row in setting.objects("rows")[:_MOST_LINES]:
            median, memory = row.number("times", "median_ms"), row.number("peak_memory")
            lines.append(
                f"measured ({row.text('name')}, {_count(threads)} "
                f"thread{'' if threads == 1 else 's'}): "
                f"{'?' if median is None else f'{median:.2f}'} ms an image, "
                f"{'?' if memory is None else mebibytes(memory)}"
            )
    return lines


def print_plan(
    bundle: Bundle,
    hosts: Sequence[Host],
    need: TargetNeeds,
    options: Options,
    *,
    as_json: bool,
) -> None:
    """Every command of a deployment, as a shell would be given it; for people to read."""
    from ..runtime.deploy.plan import plan

    plans = {host.label: plan(bundle, host, need, options) for host in hosts}
    if as_json:
        print_json([{"host": label, "steps": steps} for label, steps in plans.items()])
        return
    for label, steps in plans.items():
        print_line(f"# {label}")
        for step in steps:
            where = "there" if step["there"] else "here"
            print_line(f"# {step['step']} ({where}): {step['what']}")
            if step["command"]:
                print_line(shlex.join(step["command"]))
