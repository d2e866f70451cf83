"""What runs on a device, killed between any two steps; no ssh is needed for that."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from qmdd.runtime.deploy.agent import Agent


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """At work in the folder ``device``."""
    agent = Agent()
    agent.do_open(os.fspath(tmp_path / "device"))
    return agent


def _killed(work: Callable[[], object]) -> None:
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _kill(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_removal_that_is_broken_off_leaves_no_half(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment without its libraries, but with the file that says it is complete."""
    env = Path(agent.root, "envs", "key")
    (env / "lib").mkdir(parents=True)
    (env / "lib" / "module.py").touch()
    (env / "complete.json").touch()

    def one_only(folder: str, **_: object) -> None:
        first = next(path for path in sorted(Path(folder).rglob("*")) if path.is_file())
        first.unlink()
        _kill()

    def work() -> None:
        monkeypatch.setattr(shutil, "rmtree", one_only)
        agent.do_remove(("envs", "key"))

    _killed(work)
    assert os.listdir(Path(agent.root, "envs")) == []
    os.close(agent.lock)
    Agent().do_open(agent.root)
    assert sorted(os.listdir(agent.root)) == [".qmdd", "envs", "objects", "releases"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "absent"])
def test_what_is_removed(agent: Agent, tmp_path: Path, kind: str) -> None:
    place = Path(agent.root, "releases", "one")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    if kind == "folder":
        place.mkdir()
        (place / "to").symlink_to(tmp_path / "kept")
    elif kind == "file":
        place.touch()
    elif kind == "link":
        place.symlink_to(tmp_path / "kept")
    agent.do_remove(("releases", "one"))
    assert sorted(os.listdir(agent.root)) == [".qmdd", "envs", "objects", "releases"]
    assert os.listdir(Path(agent.root, "releases")) == []
    assert (tmp_path / "kept" / "file").exists()


@pytest.mark.parametrize("name", ["complete.json", "current"])
def test_what_is_named_is_on_the_disk_before_its_name(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """After a power cut no file says that something is complete which is not."""
    done: list[str] = []
    replace, sync = os.replace, os.sync
    monkeypatch.setattr(os, "replace", lambda *where: done.append("named") or replace(*where))
    monkeypatch.setattr(os, "sync", lambda: done.append("synced") or sync())
    monkeypatch.setattr(
        os, "fsync", lambda handle: done.append(os.readlink(f"/proc/self/fd/{handle}"))
    )
    if name == "current":
        agent.do_point((name,), "releases/one")
    else:
        agent.do_write((name,), "{}\n")
    assert done[0] == "synced"
    assert done[-2:] == ["named", agent.root]
