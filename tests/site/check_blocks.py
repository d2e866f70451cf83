"""Every command block of README.md and the documentation runs. ``make test-docs`` calls this.

The blocks of a page run in order, in one folder; the tests of a page go to one process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .blocks import Block, all_blocks, matches
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
