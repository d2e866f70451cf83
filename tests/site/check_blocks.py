"""Every command block of README.md and the documentation runs. ``make test-docs`` calls this.

The blocks of a page run in order, in one folder.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .blocks import ROOT, Block, all_blocks, matches
from .workspace import Workspace, make_workspace

BLOCKS = [block for block in all_blocks() if block.runs]
PAGES = sorted({block.page for block in BLOCKS})


@pytest.fixture(scope="session")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> Workspace:
    """What every page starts from; made once, also where several processes test."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make_workspace(tmp_path_factory.mktemp("docs") / "clone", make_video)
    shared = tmp_path_factory.getbasetemp().parent
    with (shared / "docs-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (shared / "docs-made").exists():
            return Workspace(shared / "docs-clone")
        space = make_workspace(shared / "docs-clone", make_video)
        (shared / "docs-made").touch()
        return space


@pytest.fixture
def space(prepared: Workspace, tmp_path: Path) -> Workspace:
    """A page's own folder."""
    return prepared.copy(tmp_path / "clone")


def _failure(block: Block, space: Workspace) -> str:
    """Run a block; what is wrong, empty if nothing is."""
    command = block.command()
    if block.language == "python":
        (space.root / "block.py").write_text(command, encoding="utf-8")
        command = "python block.py"
    done = space.run(command)
    if done.returncode != 0:
        return f"{block.name}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    if block.prints is not None and not matches(block.prints, done.stdout):
        return f"{block.name} prints\n{done.stdout}"
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page: str, space: Workspace) -> None:
    failed = [_failure(block, space) for block in BLOCKS if block.page == page]
    assert not any(failed), "\n\n".join(filter(None, failed))


def test_the_parity_gate_passes_and_fails(space: Workspace) -> None:
    """The workflow's own commands; with one bit of the model changed, the gate is shut."""
    held = yaml.safe_load((ROOT / "examples/parity-gate.yml").read_text(encoding="utf-8"))
    names = " ".join(f"{name}={value}" for name, value in held["env"].items())
    export, verify = (
        step["run"]
        for job in held["jobs"].values()
        for step in job["steps"]
        if step.get("run", "").startswith("qmdd ")
    )
    done = space.run(f"export {names}; {export}; {verify}")
    assert done.returncode == 0, done.stderr
    found = json.loads((space.root / "parity.json").read_text(encoding="utf-8"))
    assert found["passed"]
    assert all(tier["wrong_codes"] == 0 for tier in found["parity"])
    model = space.root / "bundle/model.onnx"
    held_bytes = bytearray(model.read_bytes())
    held_bytes[len(held_bytes) // 2] ^= 1
    model.write_bytes(held_bytes)
    assert space.run(verify).returncode == 1
