"""Every command block of README.md and the documentation runs. ``make test-docs`` calls this.

The blocks of a page run in order, in one folder; the tests of a page go to one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .blocks import ROOT, Block, all_blocks, matches
from .workspace import Workspace, make_workspace

BLOCKS = [block for block in all_blocks() if block.runs]


@pytest.fixture(scope="session")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("docs") / "clone", make_video)


@pytest.fixture(scope="session")
def workspace_of(
    prepared: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Workspace]:
    """A page's own folder."""
    made: dict[str, Workspace] = {}

    def workspace(page: str) -> Workspace:
        if page not in made:
            made[page] = prepared.copy(tmp_path_factory.mktemp("page") / "clone")
        return made[page]

    return workspace


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=block.name, marks=pytest.mark.xdist_group(block.page))
        for block in BLOCKS
    ],
)
def test_the_block_runs(block: Block, workspace_of: Callable[[str], Workspace]) -> None:
    space = workspace_of(block.page)
    command = block.command()
    if block.language == "python":
        (space.root / "block.py").write_text(command, encoding="utf-8")
        command = "python block.py"
    done = space.run(command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    if block.prints is not None:
        assert matches(block.prints, done.stdout), done.stdout


@pytest.mark.xdist_group("docs/howto/ci-gate.md")
def test_the_parity_gate_passes_and_fails(workspace_of: Callable[[str], Workspace]) -> None:
    """The workflow's own commands; with one bit of the model changed, the gate is shut."""
    space = workspace_of("examples/parity-gate.yml")
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
