"""``qmdd watch`` as a process: killed, told by signals, out of disk, under systemd."""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Start = Callable[..., "subprocess.Popen[str]"]
#: No test of these waits longer; that a machine is slow is no failure.
PATIENCE = 60.0


def until(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until ``what`` is so; the process must live on."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.01)


def names(log: Path) -> list[str]:
    if not log.exists():
        return []
    return [
        json.loads(line)["path"]
        for line in log.read_bytes().splitlines(True)
        if line.endswith(b"\n")
    ]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "in box"
    folder.mkdir()
    return folder


@pytest.fixture
def put(inbox: Path) -> Callable[..., None]:
    """Put images into the folder, each by a rename."""
    outside = inbox.with_name("image.png")
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(outside)

    def put(*given: str) -> None:
        for name in given:
            (inbox.parent / "part").write_bytes(outside.read_bytes())
            (inbox.parent / "part").rename(inbox / name)

    return put


@pytest.fixture
def start(make_bundle: Callable[..., Path], inbox: Path, tmp_path: Path) -> Iterator[Start]:
    """Start ``qmdd watch`` on the folder; ``code`` runs before."""
    bundle, processes = make_bundle(), []

    def run(*options: str, code: str = "", **environment: str) -> subprocess.Popen[str]:
        script = f"{code}\nfrom qmdd.cli.main import main\nmain()"
        fixed = ["--output", str(tmp_path / "v.jsonl"), "--settle", "0", "--poll", "0.1"]
        process = subprocess.Popen(
            [sys.executable, "-c", script, "watch", str(bundle), str(inbox), *fixed, *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def ended(process: subprocess.Popen[str]) -> str:
    """What it said, if it ended well."""
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def test_killed_again_and_again_every_file_is_scored_once(
    start: Start, put: Callable[..., None], tmp_path: Path
) -> None:
    """Files come in meanwhile; after one of the kills the last line is torn, as by a power cut."""
    dice = random.Random(5)  # noqa: S311 - no secret
    log = tmp_path / "v.jsonl"
    # A slow disk: the kill falls somewhere between two lines, or into one.
    slow = "import os, time\nold = os.fsync\nos.fsync = lambda file: (time.sleep(0.004), old(file))"
    wanted = []
    for kill in range(7):
        fresh = [f"{kill} {number}.png" for number in range(30)]
        put(*fresh)
        wanted += fresh
        process = start(code=slow)
        enough = len(names(log)) + dice.randint(1, 20)
        until(lambda enough=enough: len(names(log)) >= enough, process)
        time.sleep(dice.random() / 100)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if kill == 3:
            whole = log.read_bytes()
            log.write_bytes(whole[: -dice.randint(1, 40)])
    ended(start("--once"))
    assert collections.Counter(names(log)) == collections.Counter(wanted)
    assert log.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_next_start_goes_on(
    start: Start, put: Callable[..., None], tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "v.jsonl"
    put("a.png")
    process = start()
    until(lambda: names(log) == ["a.png"], process)
    process.send_signal(number)
    assert "1 scored, 0 could not be" in ended(process)
    put("b.png")
    assert "1 scored" in ended(start("--once"))
    assert names(log) == ["a.png", "b.png"]


def test_a_rotation(start: Start, put: Callable[..., None], tmp_path: Path) -> None:
    """As logrotate does it: rename, SIGHUP."""
    log, old = tmp_path / "v.jsonl", tmp_path / "v.jsonl.1"
    put("a.png")
    process = start()
    until(lambda: names(log) == ["a.png"], process)
    log.rename(old)
    put("b.png")
    until(lambda: names(old) == ["a.png", "b.png"], process)
    process.send_signal(signal.SIGHUP)
    until(log.exists, process)
    put("c.png")
    until(lambda: names(log) == ["c.png"], process)
    process.send_signal(signal.SIGTERM)
    assert "opened anew" in ended(process)
    assert "0 scored" in ended(start("--once"))
    assert (names(old), names(log)) == (["a.png", "b.png"], ["c.png"])


def test_a_disk_that_is_full_and_is_not(
    start: Start, put: Callable[..., None], tmp_path: Path
) -> None:
    """The system cuts a line off in the middle; said once, and every file is scored once."""
    log, limit = tmp_path / "v.jsonl", 500
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "from qmdd.runtime.watching import loop\nloop.RETRY = 0.05\n"
    )
    put(*(f"{number}.png" for number in range(6)))
    process = start(code=code)
    until(lambda: log.exists() and log.stat().st_size > limit - 250, process)
    time.sleep(0.3)
    kept = names(log)
    assert 0 < len(kept) < 6
    assert log.read_bytes().endswith(b"\n")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
    until(lambda: len(names(log)) == 6, process)
    process.send_signal(signal.SIGTERM)
    said = ended(process).splitlines()
    assert sum("trying again" in line for line in said) == 1
    assert sum("written again" in line for line in said) == 1
    assert sorted(names(log)) == [f"{number}.png" for number in range(6)]


def test_a_second_one_on_the_same_output(
    start: Start, put: Callable[..., None], tmp_path: Path
) -> None:
    put("a.png")
    process = start()
    until(lambda: names(tmp_path / "v.jsonl"), process)
    other = start()
    _, said = other.communicate(timeout=PATIENCE)
    assert other.returncode == 1
    assert "another process writes it" in said


def test_what_systemd_is_told(start: Start, put: Callable[..., None], tmp_path: Path) -> None:
    """Ready, alive more often than it asks for, what is going on, stopping."""
    put("a.png")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        told: list[str] = []

        def hears(text: str, count: int = 1) -> None:
            while sum(line.startswith(text) for line in told) < count:
                told.append(systemd.recv(4096).decode())

        process = start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        hears("READY=1")
        hears("STATUS=watching: 1 scored, 0 could not be")
        hears("WATCHDOG=1", 3)
        assert told[0] == "READY=1"
        process.send_signal(signal.SIGTERM)
        hears("STOPPING=1")
        ended(process)


def test_a_service_that_is_not_meant(start: Start, tmp_path: Path) -> None:
    """A watchdog for another process, an abstract socket that nobody has, a number that is none."""
    for environment in (
        {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "1", "NOTIFY_SOCKET": "@nobody"},
        {"WATCHDOG_USEC": "soon", "NOTIFY_SOCKET": "/nowhere/at/all"},
    ):
        ended(start("--once", **environment))


def test_wrong_places(start: Start, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").mkdir()
    process = start()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "a folder; name a file with --output" in said
    (tmp_path / "v.jsonl").rmdir()
    inbox.rmdir()
    process = start("--once")
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "no such folder" in said
