"""What to score: files, folders, patterns, lists."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.runtime.inputs import MAX_PATH_BYTES, Input, find_inputs, read_list


def _listed(data: bytes, *, null: bool = False) -> list[Input]:
    return list(read_list(io.BytesIO(data), null=null))


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("f/b.png", "f/a.mp4", "f/notes.txt", "f/g/c.webp", "p1.png", "p2.png", "q/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    given_paths = [f"{tmp_path}/none.png", f"{tmp_path}/f", f"{tmp_path}/p?.png", f"{tmp_path}/q*"]
    found = [item.path.relative_to(tmp_path).as_posix() for item in find_inputs(given_paths)]
    assert found == ["none.png", "f/a.mp4", "f/b.png", "f/g/c.webp", "p1.png", "p2.png", "q/d.jpg"]


def test_two_stars_find_each_file_once(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [item.path.name for item in find_inputs([f"{tmp_path}/**"])]
    assert found == ["1.png", "2.png"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "photo [1].png"
    path.touch()
    assert list(find_inputs([str(path)])) == [Input(path)]


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    (item,) = find_inputs([f"{tmp_path}/*.png"])
    assert item.error == f"{tmp_path}/*.png: no such file, and none matches it as a pattern"


def test_a_list_may_be_endless() -> None:
    listed = (Input(Path(f"{n}.png")) for n in itertools.count())
    found = find_inputs(["first.png", "-", "never.png"], listed)
    assert [str(item.path) for item in itertools.islice(found, 3)] == [
        "first.png",
        "0.png",
        "1.png",
    ]


def test_paths_in_a_list_are_no_patterns_but_may_be_folders(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    listed = _listed(f"{tmp_path}\n{tmp_path}/*.png\n".encode())
    found = [str(item.path) for item in find_inputs(["-"], listed)]
    assert found == [f"{tmp_path}/a.png", f"{tmp_path}/*.png"]


def test_lines() -> None:
    found = _listed(b"a.png\r\n\nb c.png\n\xff.png\nlast.png")
    assert [os.fsencode(item.path) for item in found] == [
        b"a.png",
        b"b c.png",
        b"\xff.png",
        b"last.png",
    ]
    assert not any(item.error for item in found)


def test_nul_bytes() -> None:
    assert [str(i.path) for i in _listed(b"a\nb\0c\r\0", null=True)] == ["a\nb", "c\r"]
    (bad,) = _listed(b"a\0b\0")
    assert bad.error == "a?b?: holds a NUL byte; for such a list add --null"


def test_lines_too_long_to_be_paths_are_refused_and_not_kept() -> None:
    long = b"x" * (3 * MAX_PATH_BYTES)
    found = _listed(long + b"\na.png\n" + long)
    assert [item.error is None for item in found] == [False, True, False]
    assert found[0].error is not None
    assert len(found[0].error) < 200
    assert "longer than 65,536 bytes" in found[0].error


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda b: not {0, 10, 13} & set(b))))
def test_any_names_come_back(names: list[bytes]) -> None:
    for null, end in ((False, b"\n"), (True, b"\0")):
        found = _listed(b"".join(name + end for name in names), null=null)
        assert [os.fsencode(i.path) for i in found] == [
            os.fsencode(Path(os.fsdecode(n))) for n in names
        ]


def test_each_path_is_given_as_soon_as_it_has_been_written() -> None:
    read, write = os.pipe()
    with open(read, "rb") as stream, open(write, "wb", buffering=0) as writer:
        paths = read_list(stream)
        for name in ("a.png", "b.png"):
            writer.write(f"{name}\n".encode())
            assert next(paths) == Input(Path(name))
        writer.close()
        assert list(paths) == []


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\r\n"])
def test_an_empty_list(data: bytes) -> None:
    assert _listed(data) == []
