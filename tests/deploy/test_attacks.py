"""Devices that are unlucky, odd or hostile."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

import pytest

from qmdd.runtime.deploy.layout import Layout

from .deployer import Deployer, current

FAKE = """
import json, sys
print("qmdd-agent 3.11", flush=True)
held = sys.stdin.buffer
held.read(int(held.readline()))
print(json.dumps({"ready": 1, "ok": True}), flush=True)
for line in held:
    if line.strip():
        print(ANSWER, flush=True)
"""


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("qmdd: error: ")
    assert lines[0].isprintable()
    return lines[0]


@pytest.mark.parametrize("shell", ["fish", "tcsh"])
def test_login_shells(deployer: Deployer, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is missing: apt install {shell}")
    device = deployer.device()
    device.login(shell=program)
    found = deployer.outcome("device-a")
    assert found["code"] == 0, found


def test_a_login_that_waits_for_an_answer_is_given_up(deployer: Deployer) -> None:
    device = deployer.device(ready=False)
    device.login(before="sleep 300")
    with subprocess.Popen(
        deployer.command("device-a"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 1
    assert "Traceback" not in said


def test_a_login_that_changes_the_folder(deployer: Deployer) -> None:
    """The folder is in the home, wherever the login shell goes first."""
    device = deployer.device()
    device.login(before=f"cd {shlex.quote(str(device.folder / 'tmp'))}")
    found = deployer.outcome("device-a")
    assert found["code"] == 0, found
    assert (device.home / "qmdd" / "current").is_symlink()


def test_a_login_that_reads_what_is_not_its(deployer: Deployer) -> None:
    """Before the device's Python runs, nothing is sent that a shell's start could take."""
    device = deployer.device()
    device.login(before="timeout 1 cat > eaten")
    found = deployer.outcome("device-a")
    assert found["code"] == 0, found
    assert (device.home / "eaten").read_bytes() == b""


def test_words_of_a_device_do_not_reach_the_terminal_as_they_are(deployer: Deployer) -> None:
    device = deployer.device(ready=False)
    device.login(before="printf '\\033]0;title\\007\\033[2J evil\\n' >&2; exit 3")
    _one_line(deployer("device-a"))


@pytest.mark.parametrize(
    "answer",
    [
        '{"ok": true}', "[]", '{"ok": true, "facts": 3, "root": 7, "free": "x"}', "{", "null",
        '{"words": 3}', '{"refused": ["\\u001b[2J"]}', '{"reason": null, "errno": "x"}',
        '{"ok": true, "facts": {"python": [1], "disk": {}}, "root": "/x", "free": -1,'
        ' "releases": [], "current": 5, "have": []}',
        "[" * 100_000,
        '{"ok": true, "free": 1e999, "root": "/\\u0000", "facts": {"python": {"version": "9"}}}',
    ],
)  # fmt: skip
def test_answers_that_are_none(deployer: Deployer, answer: str) -> None:
    device = deployer.device(ready=False)
    script = device.folder / "fake.py"
    script.write_text(FAKE.replace("ANSWER", repr(answer)), encoding="utf-8")
    device.program("python3", f"exec {shlex.quote(sys.executable)} {shlex.quote(str(script))}")
    if answer == '{"words": 3}':
        script.write_text(script.read_text().replace("for line", "print('{}')\nfor line"))
    _one_line(deployer("device-a"))


def test_a_folder_that_is_a_file_or_a_dangling_link(deployer: Deployer) -> None:
    device = deployer.device(ready=False)
    (device.home / "file").write_text("mine")
    _one_line(deployer("device-a:file"))
    _one_line(deployer("device-a:file/below"))
    (device.home / "loop").symlink_to("loop")
    _one_line(deployer("device-a:loop"))
    assert (device.home / "file").read_text() == "mine"


def test_what_stands_where_current_should_be(deployer: Deployer) -> None:
    device = deployer.device()
    (device.home / "qmdd" / "current").mkdir()
    (device.home / "qmdd" / "current" / "a").write_text("mine")
    line = _one_line(deployer("device-a"))
    assert "current" in line
    assert (device.home / "qmdd" / "current" / "a").read_text() == "mine"


def test_a_python_of_the_environment_that_went_away(deployer: Deployer) -> None:
    """As after an upgrade of the system: the next deployment says what to do, or does it."""
    device = deployer.device()
    first = deployer.outcome("device-a")
    assert first["code"] == 0, first
    (env,) = [p for p in (device.home / "qmdd" / "envs").iterdir() if p.is_dir()]
    python = env / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    found = deployer.outcome("device-a", options=("--runtime", "onnxruntime"))
    assert found["code"] == 0 or "--remake" in found["error"], found
    assert current(device) == first["release"] or found["code"] == 0


def test_a_line_that_is_slow(deployer: Deployer) -> None:
    """30 kB a second is slow, not dead, even where a dead line is given up after 3 s."""
    device = deployer.device()
    device.line.slow(30_000)
    found = deployer.outcome("device-a")
    assert found["code"] == 0, found["error"]


def test_pip_never_reads_the_folders_name_as_a_requirement() -> None:
    """As a value of an option any name will do; as a requirement, it is parsed."""
    layout = Layout("/home/me/a;b", "release", "key")
    line = layout.install("qmdd.whl", ("runtime",), index=False, constraints=False)
    assert line[-2] == "--"
    assert ";" not in line[-1]
