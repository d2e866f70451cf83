"""The documents hold what the code computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def make_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_generated_part_is_as_the_code_has_it(make_tables: ModuleType) -> None:
    for name, parts in make_tables.DOCUMENTS.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        found = parts()
        assert make_tables.filled(text, found) == text, f"run python docs/make_tables.py: {name}"
        for part in found:
            assert f"<!-- generated: {part} -->" in text, f"{name} lacks {part}"


def test_an_altered_number_would_be_seen(make_tables: ModuleType) -> None:
    text = "a\n<!-- generated: one -->\n| 2.671 |\n<!-- end -->\nb\n"
    assert make_tables.filled(text, {"one": "| 2.671 |"}) == text
    assert make_tables.filled(text, {"one": "| 2.672 |"}) != text
    with pytest.raises(KeyError):
        make_tables.filled(text, {"two": ""})
