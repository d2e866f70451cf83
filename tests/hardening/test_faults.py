"""A few kills, interruptions and starvations of every command that writes; `make` has the long run.

One process does it all: it has to import everything before it forks, and must have no threads then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from hardening.faults.case import Case, Output, hidden
from hardening.faults.cases import CASES
from hardening.faults.record import Record, faults
from hardening.faults.starve import WAYS
from hardening.faults.swap import READERS
from qmdd.cli.main import SUMMARIES, cli

ROOT = Path(__file__).resolve().parents[2]
#: The others write a single file in the way in which these do.
KILLED = (
    *("export", "export --force", "export --serve triton, further", "build", "report"),
    *("scan --force", "watch", "eval", "train", "calibrate", "freeze"),
    *("deploy, the device killed", "rollback, the device killed"),
)
STARVED = ("export --force", "scan", "eval", "freeze")
QUICK = (
    *("--kills", "2", "--moments", "2", "--interrupts", "1", "--readings", "2", "--crowd", "120"),
    *(word for name in KILLED for word in ("--command", name)),
    *("--command", "scan"),
    *(word for name in STARVED for word in ("--starve", name)),
)

Found = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the short run recorded."""
    record = tmp_path_factory.mktemp("faults") / "faults.json"
    line = [sys.executable, "-m", "hardening.faults", *QUICK, "--record", str(record)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert record.exists(), done.stderr
    held: Found = json.loads(record.read_bytes())
    assert (done.returncode == 0) == (held["faults"] == 0), done.stderr
    return held


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_command_leaves_the_old_state_or_the_new_one(found: Found, name: str) -> None:
    (tally,) = (each for each in found["kills"] if each["case"] == name)
    wrong = {
        key: tally[key] for key in ("half", "lost", "failed", "leftovers", "orphans") if tally[key]
    }
    assert not wrong, tally["notes"]
    assert tally["kills"] >= 1
    assert tally["kills"] == tally["old"] + tally["new"] + tally["between"]


@pytest.mark.parametrize("way", WAYS)
def test_a_starved_command_says_why_in_a_line_and_leaves_nothing(found: Found, way: str) -> None:
    told = [each for each in found["starved"] if each["way"] == way]
    if way == "read-only" and not any(each["runs"] for each in told):
        pytest.skip("no file system may be mounted here; root may")
    assert {each["case"] for each in told} == set(STARVED)
    assert [each for each in told if each["faults"]] == []


@pytest.mark.parametrize("name", [reader.arguments[0] for reader in READERS])
def test_what_is_read_while_it_is_replaced_is_of_one_bundle(found: Found, name: str) -> None:
    (told,) = (each for each in found["replaced"] if each["command"] == name)
    assert told["mixed"] == 0, told["notes"]
    assert told["runs"] == told["first"] + told["second"] + told["refused"]
    assert told["swaps"] >= 1  # it was replaced, however short the runs were


def test_a_crowd_gets_its_own_answers(found: Found) -> None:
    assert len(found["crowds"]) == 4
    for told in found["crowds"]:
        assert told["right"] == told["asked"] > 90, told


def test_every_command_that_has_an_output_is_killed() -> None:
    """Options that name what is written; who adds one adds a case."""
    writes = {"--output", "--out", "--plot", "--scores", "--latent", "--write-twin"}
    context, used = click.Context(cli), {word for case in CASES for word in case.arguments}
    for name in SUMMARIES:
        command = cli.get_command(context, name)
        assert command is not None
        options = {word for option in command.params for word in option.opts} & writes
        assert name in {case.command for case in CASES} or not options, name
        short = {"--output": "-o"}
        assert all(option in used or short.get(option) in used for option in options), name


def test_a_file_that_is_not_replaced_in_one_step_is_found(tmp_path: Path) -> None:
    """The run itself: a command that writes in place is half-written at some moment."""
    script = f"""
import os, sys
sys.path.insert(0, {os.fspath(ROOT)!r})
from pathlib import Path
from hardening.faults import child, kills
from hardening.faults.case import Case, Output
import qmdd.runtime.files, qmdd.runtime.leftovers, qmdd.cli.zoo

def careless(path, data):
    with open(path, "wb") as stream:
        stream.write(data[:3]); stream.flush(); os.fsync(stream.fileno()); stream.write(data[3:])
    os.unlink("other")

import click
@click.command("zoo")
def command():
    careless("file", b"content")
qmdd.cli.zoo.command = command
child.adopt()
def prepare(world, place):
    (place / "file").write_bytes(b"old"); (place / "other").touch()
case = Case("careless", ("zoo",), (), (Output("file"), Output("other")), prepare)
root = Path({os.fspath(tmp_path)!r})
tally = kills.kill(case, root, root / "case" / "place", 5)
print(tally.kills >= 5, tally.half > 0, tally.faults >= tally.half)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True"] * 3, done.stderr


def test_hidden_work_is_told_from_what_lies_in_it() -> None:
    work = ".out.0123456789abcdef"
    assert hidden({work: "", f"{work}/model": "1", "out": "", ".gitignore": "2"}) == [work]


def test_a_record_is_gone_on_with(tmp_path: Path) -> None:
    from hardening.faults.kills import Tally
    from hardening.faults.starve import Starved

    path = tmp_path / "faults.json"
    kept = Record(path)
    kept.add(Tally("scan", kills=3, old=3))
    kept.add(Starved("scan", "full", runs=1))
    kept.add(Tally("scan", kills=5, old=4, half=1))
    again = Record(path)
    assert again.get(Tally, "scan") == Tally("scan", kills=5, old=4, half=1)
    assert again.get(Starved, "scan", "memory") is None
    assert faults(again.found) == 1
    assert json.loads(path.read_bytes())["killed"] == 5


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(isinstance(case, Case) and case.outputs for case in CASES)
    assert all(isinstance(output, Output) for case in CASES for output in case.outputs)
