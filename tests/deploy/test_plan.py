"""``--dry-run``: every command, none of them run; and what the command line's defaults are."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qmdd.cli import deploy as command
from qmdd.cli.main import cli
from qmdd.runtime.deploy.connection import ssh_arguments
from qmdd.runtime.deploy.fleet import JOBS
from qmdd.runtime.deploy.hosts import Host
from qmdd.runtime.deploy.layout import Layout
from qmdd.runtime.deploy.options import Options

Invoke = Callable[..., Any]


@pytest.fixture
def invoke() -> Invoke:
    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])


def test_defaults_are_the_same_on_both_sides() -> None:
    options = Options()
    assert (JOBS, options.timeout) == (command.JOBS, command.TIMEOUT)
    assert (options.bench_seconds, options.patience) == (command.BENCH, command.PATIENCE)


def test_a_dry_run_shows_every_command_and_connects_to_nothing(
    invoke: Invoke, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a dry run connects to nothing")

    monkeypatch.setattr("qmdd.runtime.deploy.connection.Connection.__init__", never)
    result = invoke("deploy", bundle, "me@box:/opt/a b", "other", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    plans = json.loads(result.stdout)
    assert [plan["host"] for plan in plans] == ["me@box:/opt/a b", "other"]
    commands = [step["command"] for step in plans[0]["steps"] if step["command"]]
    assert commands[0][:-1] == ssh_arguments(Host("me@box", "/opt/a b"))
    there = Layout("/opt/a b", "<release>", "<environment>")
    assert commands[1] == there.make_env("python3", system_packages=False)
    assert commands[2][-1].endswith("-py3-none-any.whl[runtime]")
    assert commands[3:] == [there.verify(), there.bench(10)]
    assert not (bundle / "devices").exists()
    # For people: each is a line that a shell reads back as the same words.
    shown = invoke("deploy", bundle, "me@box:/opt/a b", "--dry-run")
    lines = [line for line in shown.stdout.splitlines() if not line.startswith("#")]
    assert [shlex.split(line) for line in lines] == commands


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name a host"),
        (("box", "box"), "box: named twice"),
        (("box", "--hosts", "none.txt"), "none.txt: cannot be read"),
        (("a b",), "a host's or user's name"),
        (("box", "--jobs", "0"), "--jobs"),
        (("box", "--ssh-config", "none"), "--ssh-config"),
    ],
)
def test_wrong_usage(invoke: Invoke, bundle: Path, arguments: tuple[str, ...], says: str) -> None:
    result = invoke("deploy", bundle, *arguments, "--dry-run")
    assert result.exit_code == 2
    assert says in result.stderr


def test_no_bundle(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("deploy", tmp_path / "none", "box")
    assert result.exit_code == 1
    assert "no such bundle" in result.stderr
    both = invoke("rollback", "box", "--list", "--to", "x")
    assert both.exit_code == 2
