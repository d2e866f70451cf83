"""``qmdd deploy``: a bundle on devices, verified there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .deployment import (
    config_option,
    hosts_of,
    print_outcome,
    print_plan,
    python_option,
    stdin_is_terminal,
)
from .errors import FAILURE, on_interrupt
from .options import FILE, debug_option, json_option, runtime_option
from .output import print_json, progress

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle
    from ..runtime.deploy.hosts import Host
    from ..runtime.deploy.outcome import Outcome
    from ..runtime.device.needs import TargetNeeds

#: As :data:`qmdd.runtime.deploy.fleet.JOBS`, and the defaults of
#: :class:`qmdd.runtime.deploy.deployment.Options`; a test holds them together.
JOBS, TIMEOUT, BENCH, PATIENCE = 4, 3600, 10, 15


@click.command("deploy")
@click.argument("bundle", type=FILE)
@click.argument("hosts", nargs=-1, metavar="[USER@]HOST[:DIR]...")
@click.option("--hosts", "list_", type=FILE, metavar="FILE", help="A list of hosts, one a line.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=JOBS,
    show_default=True,
    metavar="N",
    help="Hosts at a time.",
)
@python_option
@click.option(
    "--wheel", type=FILE, metavar="FILE", help="qmdd's wheel; default: of the qmdd that runs here."
)
@click.option(
    "--wheels",
    type=FILE,
    metavar="DIR",
    help="Wheels for devices without a package index: pip there asks none.",
)
@click.option(
    "--constraints", type=FILE, metavar="FILE", help="Versions that pip there is held to."
)
@runtime_option
@click.option(
    "--side",
    metavar="N|MIN:BEST:MAX",
    help="Of images, for an engine that is built there; default: 256.",
)
@click.option(
    "--batch",
    metavar="N|MIN:BEST:MAX",
    help="Images at once, for an engine that is built there; default: 1.",
)
@click.option(
    "--bench-seconds",
    type=click.FloatRange(0, 3600),
    default=BENCH,
    show_default=True,
    metavar="S",
    help="Time to measure for there; 0: not at all.",
)
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=TIMEOUT,
    show_default=True,
    metavar="S",
    help="Seconds that building, and verifying, may take there.",
)
@click.option(
    "--patience",
    type=click.IntRange(3, 600),
    default=PATIENCE,
    show_default=True,
    metavar="S",
    help="Seconds to wait for a connection, and for one that went dead.",
)
@click.option("--remake", is_flag=True, help="Make environment and engine anew.")
@config_option
@click.option("--dry-run", is_flag=True, help="Show every command; connect to nothing.")
@json_option
@debug_option
def command(
    bundle: Path,
    hosts: tuple[str, ...],
    list_: Path | None,
    jobs: int,
    python: str,
    wheel: Path | None,
    wheels: Path | None,
    constraints: Path | None,
    runtime: str | None,
    side: str | None,
    batch: str | None,
    bench_seconds: float,
    timeout: int,
    patience: int,
    remake: bool,
    ssh_config: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Copy BUNDLE to devices over ssh, build its engine there, verify and measure it there.

    What ran before runs on until the new deployment is verified; a failed step changes nothing
    (qmdd rollback returns to the deployment before). Only what changed is copied, and what a broken
    connection left is gone on with. Each report comes back into BUNDLE/devices. DIR is in the home
    of the device's user; default: qmdd.

    \b
    qmdd deploy bundle jetson@192.168.1.20
    qmdd deploy bundle --hosts devices.txt --json
    qmdd deploy bundle box:/opt/qmdd --dry-run
    """
    named = hosts_of(hosts, list_)

    from ..runtime.bundle import Bundle
    from ..runtime.deploy.fleet import deploy_to_all
    from ..runtime.deploy.options import Options
    from ..runtime.deploy.outcome import write_report
    from ..runtime.errors import DeployError

    opened = Bundle.open(bundle)
    need = _need(opened, runtime)
    options = Options(
        python=python,
        config=ssh_config,
        # One terminal cannot answer for several.
        ask=len(named) == 1 and stdin_is_terminal(),
        patience=patience,
        wheel=wheel,
        wheels=wheels,
        constraints=constraints,
        timeout=timeout,
        runtime=runtime,
        side=side,
        batch=batch,
        bench_seconds=bench_seconds,
        remake=remake,
    )
    if dry_run:
        print_plan(opened, named, need, options, as_json=as_json)
        return 0
    on_interrupt(
        lambda: "devices that were not finished run what they ran before; what was copied is kept"
    )
    outcomes: list[Outcome] = []
    with progress() as report:

        def say(host: Host, what: str, done: int, total: int) -> None:
            report(f"{host.label}: {what}", done, total)

        for outcome in deploy_to_all(opened, named, need, options, jobs=jobs, report=say):
            outcomes.append(outcome)
            if outcome.passed:
                try:
                    write_report(opened.path, outcome)
                except DeployError as error:
                    outcome.warnings.append(str(error))
            if not as_json:
                print_outcome(outcome)
    if as_json:
        order = {host: index for index, host in enumerate(named)}
        outcomes.sort(key=lambda outcome: order[outcome.host])
        print_json(
            {
                "bundle": str(bundle),
                "passed": all(outcome.passed for outcome in outcomes),
                "hosts": [outcome.to_dict() for outcome in outcomes],
            }
        )
    return 0 if all(outcome.passed for outcome in outcomes) else FAILURE


def _need(bundle: Bundle, runtime: str | None) -> TargetNeeds:
    """What the target asks of a device; nothing of its GPU where another runtime is asked."""
    from ..exporter.target_needs import needs_of
    from ..exporter.targets import find_target

    need = needs_of(find_target(bundle.target))
    if runtime in (None, "tensorrt"):
        return need
    return dataclasses.replace(need, backend="", runtime=str(runtime), jetpack="", memory=0)
