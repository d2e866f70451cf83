"""Folders in order with bounded memory, and patterns as a shell has them."""

from __future__ import annotations

import glob
import inspect
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.runtime.listing import is_pattern, matches, sorted_names, walk


@given(st.integers(0, 40), st.integers(1, 7))
def test_parts_join_to_the_whole(tmp_path_factory: pytest.TempPathFactory, count: int, part: int):
    folder = tmp_path_factory.mktemp("names")
    for index in range(count):
        (folder / f"{(index * 7919) % 101:03}{index}").touch()
    found = list(sorted_names(str(folder), lambda _: True, part))
    assert found == sorted(os.listdir(folder))


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    """Twenty thousand long names: all of them would take 5 MB."""
    name = "n" * 200
    (tmp_path / "a").touch()
    for index in range(20_000):
        os.link(tmp_path / "a", tmp_path / f"{name}{index:05}.png")
    tracemalloc.start()
    count = sum(1 for _ in sorted_names(str(tmp_path), lambda _: True, 1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 1 << 20


def test_files_that_come_and_go_while_a_folder_is_read(tmp_path: Path) -> None:
    """What is removed later is not seen twice, nor does it end the listing."""
    for index in range(10):
        (tmp_path / f"{index}").touch()
    names = sorted_names(str(tmp_path), lambda _: True, 2)
    seen = [next(names)]
    (tmp_path / "5").unlink()
    (tmp_path / "00").touch()  # sorts before what has been seen of it
    seen += names
    assert seen == sorted(set(seen))
    assert {"0", "1", "9"} <= set(seen)
    assert "5" not in seen


def test_a_folder_that_vanishes_is_yielded_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    files = walk(tmp_path, frozenset({".png"}))
    assert next(files) == tmp_path / "a" / "1.png"
    (tmp_path / "b" / "1.png").unlink()
    (tmp_path / "b").rmdir()
    assert list(files) == [tmp_path / "b"]


def test_deep_folders_need_no_recursion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper than Python's stack, which is made shorter for it: deep paths take long."""
    depth = 200
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("a.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + depth // 2)
    try:
        found = [str(path) for path in walk(tmp_path, frozenset({".png"}))]
    finally:
        sys.setrecursionlimit(limit)
    Path("a.png").unlink()
    for _ in range(depth):  # what clears up after tests may not get so deep
        os.chdir("..")
        os.rmdir("d")
    assert found == [f"{tmp_path}/{'d/' * depth}a.png"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = ["a.png", "b.jpg", ".hidden.png", "x/a.png", "x/y/b.png", "x/.deep/c.png", "z [1].png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        "*.png",
        "?.*",
        "[ab].*",
        "x/*",
        "*/*.png",
        "**/*.png",
        "x/**/*.png",
        "**/b.png",
        ".*.png",
        "none*",
        "x/*/../*.png",
        "./*.png",
        "**/**/*.png",
    ],
)
def test_patterns_match_what_pythons_glob_finds(tree: Path, pattern: str) -> None:
    found = [os.path.normpath(path) for path in matches(pattern)]
    assert sorted(found) == sorted(
        {os.path.normpath(p) for p in glob.glob(pattern, recursive=True)}
    )
    absolute = [str(path) for path in matches(f"{tree}/{pattern}")]
    assert len(absolute) == len(found)
    assert all(path.startswith(str(tree)) for path in absolute)


def test_two_stars_at_the_end_are_everything_below(tree: Path) -> None:
    found = {str(path) for path in matches("x/**")}
    assert found == {"x/a.png", "x/y", "x/y/b.png"}


def test_what_a_pattern_is() -> None:
    assert all(map(is_pattern, ("*.png", "a?", "[ab]", "a/**/b")))
    assert not any(map(is_pattern, ("a.png", "-", "{a,b}", "~")))


def test_patterns_of_thousands_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a path may have, with no recursion for plain names."""
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    here = f"../{tmp_path.name}/"
    count = 4000 // len(here)
    assert list(matches(here * count + "*.png")) == [Path(here * count, "a.png")]
    (tmp_path / "d").mkdir()
    assert [path.name for path in matches("d/../" * 750 + "*.png")] == ["a.png"]
    assert list(matches("d/../" * 750 + "none/*.png")) == []


def test_what_is_longer_than_a_path_is_no_pattern() -> None:
    """Making an expression of a thousand times as many brackets would take minutes."""
    assert is_pattern("[" * 4096)
    assert not is_pattern("[" * 4097)
    assert list(matches("[" * 4096)) == []
