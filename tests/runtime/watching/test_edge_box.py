"""The example of an edge box: its unit is valid and shut off, and its command line really runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "edge-box"
UNIT = EXAMPLE / "qmdd-watch.service"
PATIENCE = 60.0
#: What `systemd-analyze security` may say at most, in tenths: 100 is a service without any limits.
EXPOSURE = 10


def settings(section: str) -> dict[str, list[str]]:
    """Each key of a section of the unit, with all its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").partition(f"[{section}]\n")[2].splitlines():
        if line.startswith("["):
            break
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def box(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    """What `qmdd deploy` leaves, in a folder in place of /: a link to a release."""
    release = tmp_path / "opt" / "qmdd" / "releases" / "1"
    (release / "env" / "bin").mkdir(parents=True)
    program = release / "env" / "bin" / "qmdd"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m qmdd.cli.main "$@"\n')
    program.chmod(0o755)
    make_bundle().rename(release / "bundle")
    (tmp_path / "opt" / "qmdd" / "current").symlink_to("releases/1")
    (tmp_path / "srv" / "qmdd" / "inbox").mkdir(parents=True)
    (tmp_path / "var" / "lib" / "qmdd").mkdir(parents=True)
    return tmp_path


def placed(text: str, box: Path) -> str:
    """``text`` with the example's folders where the box has them."""
    return re.sub(r"/(opt|srv|var/lib)/qmdd", lambda found: f"{box}{found[0]}", text)


def test_the_command_line_of_the_unit(box: Path) -> None:
    """Started, given an image, its log rotated, reloaded and stopped by the unit's own words."""
    (command,) = settings("Service")["ExecStart"]
    (reload,) = settings("Service")["ExecReload"]
    if not Path(reload.split()[0]).exists():
        pytest.skip(f"{reload.split()[0]} is missing: apt install procps")
    process = subprocess.Popen(shlex.split(placed(command, box)), stderr=subprocess.PIPE, text=True)
    log, old = box / "var/lib/qmdd/verdicts.jsonl", box / "var/lib/qmdd/verdicts.jsonl.1"

    def until(what: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)

    try:
        image = box / "image.png"
        Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(image)
        image.rename(box / "srv/qmdd/inbox/image.png")
        until(lambda: log.exists() and log.read_text())
        log.rename(old)
        subprocess.run(shlex.split(reload.replace("$MAINPID", str(process.pid))), check=True)
        until(log.exists)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == 0, said
    assert "1 scored" in said
    (line,) = old.read_text().splitlines()
    assert json.loads(line)["path"] == "image.png"
    assert log.read_text() == ""


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt install systemd")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def test_systemd_finds_nothing_wrong_with_the_unit(box: Path) -> None:
    unit = box / UNIT.name
    unit.write_text(placed(UNIT.read_text(encoding="utf-8"), box).replace(str(box / "var"), "/var"))
    done = _analyze("verify", str(unit))
    ours = [line for line in done.stderr.splitlines() if "qmdd" in line]
    assert ours == []
    # The same check sees a mistake.
    unit.write_text(unit.read_text().replace("Type=notify", "Type=notice"))
    assert "notice" in _analyze("verify", str(unit)).stderr


def test_the_service_is_shut_off() -> None:
    done = _analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT))
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze cannot look at a unit offline; install systemd 250 or newer")
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_what_the_service_may_do() -> None:
    service = settings("Service")
    assert service["PrivateNetwork"] == ["yes"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["DynamicUser"] == ["yes"]
    assert "MemoryMax" in service
    # systemd is told through a socket of this family.
    assert service["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert int(service["WatchdogSec"][0]) >= 60


def test_the_rotation_is_of_the_file_that_is_written() -> None:
    rotation = (EXAMPLE / "qmdd-watch.logrotate").read_text(encoding="utf-8")
    (command,) = settings("Service")["ExecStart"]
    assert re.search(rf"^{re.escape(command.split()[-1])} {{$", rotation, re.M)
    assert "qmdd-watch.service" in rotation
    if shutil.which("logrotate") is None:
        return
    done = subprocess.run(
        ["logrotate", "--debug", str(EXAMPLE / "qmdd-watch.logrotate")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_names_every_file() -> None:
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLE.iterdir():
        assert path.name in text or path.name == "README.md"
