"""The Dockerfile: its steps are the documented ones, what it copies is there, nobody is root."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
DOCS = (PROJECT / "docs" / "docker.md").read_text(encoding="utf-8")
#: The stages that are images for users.
IMAGES = ("ci", "device", "runtime")

Instruction = tuple[str, str]


def stages() -> dict[str, list[Instruction]]:
    """Instructions of each stage, lines joined, comments left out; a stage's first is its FROM."""
    found: dict[str, list[Instruction]] = {}
    joined = re.sub(r"^\s*#.*\n", "", TEXT, flags=re.M).replace("\\\n", " ")
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            found[name] = [("FROM", base)]
        else:
            list(found.values())[-1].append((word, " ".join(rest.split())))
    return found


STAGES = stages()


def commands(stage: str) -> list[str]:
    """What a stage runs, a command a line."""
    runs = [rest for word, rest in STAGES[stage] if word == "RUN"]
    return [command.strip() for run in runs for command in run.split(" && ")]


def copied(stage: str) -> list[str]:
    """Paths of the project that a stage copies."""
    found = []
    for word, rest in STAGES[stage]:
        parts = rest.split()
        if word == "COPY" and not parts[0].startswith("--from="):
            found += [part for part in parts[:-1] if not part.startswith("--")]
    return found


def sent(path: str) -> bool:
    """Whether .dockerignore lets a path of the project through: its last line that fits decides."""
    through = True
    for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        parents = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 2)]
        deep = pattern.removeprefix("**/")
        if any(
            (fnmatch.fnmatch(part, pattern) and part.count("/") == pattern.count("/"))
            or (deep != pattern and fnmatch.fnmatch(part.split("/")[-1], deep))
            for part in parents
        ):
            through = line.startswith("!")
    return through


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_steps_are_the_documented_ones(stage: str) -> None:
    section = DOCS.partition(f"\n### {stage}\n")[2].partition("\n### ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.S)
    assert block, f"docs/docker.md has no steps for {stage}"
    assert block[1].splitlines() == commands(stage)


@pytest.mark.parametrize("stage", list(STAGES))
def test_what_is_copied_is_there_and_is_sent(stage: str) -> None:
    for path in copied(stage):
        if path == ".":
            continue
        assert (PROJECT / path).exists(), path
        assert sent(path.removeprefix("./")), path


def test_the_ignored_are_not_sent() -> None:
    for path in ("out", "runs", ".venv/bin/python", ".git/config", "build/x", "shared"):
        assert not sent(path), path
    assert not sent("runtime/native/qmdd_native.so")
    assert not sent("runtime/watching/__pycache__/log.cpython-311.pyc")
    assert sent("runtime/native/conv.cpp")


def test_everything_of_a_clean_clone_is_sent() -> None:
    """To the image that runs its checks: what stands at the root, but for git's own and results."""
    for path in PROJECT.iterdir():
        own = path.name.startswith(".") and path.name not in (".ci", ".dockerignore")
        results = ("build", "dist", "out", "runs", "shared")
        if not own and path.name not in results and not path.name.endswith(".egg-info"):
            assert sent(path.name), path.name


def test_a_wheel_has_all_that_it_needs() -> None:
    """Both stages that build one copy the same, and every room."""
    assert copied("builder") == copied("device-builder")
    rooms = {"models", "calibration", "exporter", "runtime", "cli"}
    assert rooms < {path.removeprefix("./") for path in copied("builder")}


@pytest.mark.parametrize("stage", IMAGES)
def test_nobody_is_root(stage: str) -> None:
    """From the last USER on, what runs is a number that is not 0."""
    users = [rest for word, rest in STAGES[stage] if word == "USER"]
    assert users
    assert int(users[-1]) > 0
    words = [word for word, _ in STAGES[stage]]
    assert words.index("USER") < max(words.index("CMD"), words.index("WORKDIR"))


def test_every_installation_is_pinned() -> None:
    for stage in STAGES:
        for command in commands(stage):
            if re.search(r"pip install", command):
                assert "--constraint constraints.txt" in command, command
            if re.search(r"pip wheel", command):
                assert "--no-deps --no-build-isolation" in command, command


def test_the_default_image_is_the_last_stage() -> None:
    assert list(STAGES)[-1] == "runtime"
    assert "docker build --tag qmdd ." in DOCS


def test_the_image_of_the_checks_has_what_they_need() -> None:
    """The packages that .ci/run looks for, and those that tests skip without."""
    (line,) = [command for command in commands("ci") if command.startswith("apt-get install")]
    installed = set(shlex.split(line)[2:])
    script = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    looked_for = set(re.findall(r"^needs \S+ (\S+)$", script, re.M))
    assert looked_for | {"g++", "make", "openssh-server", "procps", "systemd"} <= installed
