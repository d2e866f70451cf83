"""What the rooms offer is documented, and the examples in docstrings are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("models", "calibration", "exporter", "runtime")
EXAMPLES = sorted(
    path.relative_to(ROOT).with_suffix("")
    for room in (*ROOMS, "cli")
    for path in (ROOT / room).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_documented(room: str) -> None:
    package = importlib.import_module(f"qmdd.{room}")
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or callable(value):
            assert value.__doc__, name
            # A dataclass without a docstring is given its signature for one.
            assert not value.__doc__.startswith(f"{name}("), name
        else:
            assert _comment_above(f"{package.__name__}.{package._HOMES[name]}", name), name


def _comment_above(module: str, name: str) -> bool:
    """Whether a constant is documented, as Sphinx wants it: by a line ``#: ...`` above it."""
    path = importlib.import_module(module).__file__
    assert path
    text = Path(path).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return text.splitlines()[node.lineno - 2].startswith("#:")
    return False


@pytest.mark.parametrize("room", ROOMS)
def test_a_name_that_is_not_there_is_an_attribute_error(room: str) -> None:
    package = importlib.import_module(f"qmdd.{room}")
    assert set(package._HOMES) <= set(package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize("module", EXAMPLES, ids=str)
def test_examples_in_docstrings_are_true(module: Path) -> None:
    found = doctest.testmod(importlib.import_module("qmdd." + ".".join(module.parts)))
    assert found.attempted > 0
    assert found.failed == 0
