"""The log of verdicts: whole lines or none, its memory, and what is no log."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmdd.runtime.watching.found import Found, key_of, look_at
from qmdd.runtime.watching.log import LogError, VerdictLog
from qmdd.runtime.watching.scan import Scan, suffixes

LINE = {"time": "2026-11-26T00:00:00Z", "score": 0.5, "verdict": "real"}


def found(name: str, size: int = 3, mtime_ns: int = 7) -> Found:
    return Found(Path("/in") / name, name, size, mtime_ns)


def write(path: Path, *names: str) -> None:
    with VerdictLog(path) as log:
        for name in names:
            log.append(found(name), LINE)


def remembered(path: Path) -> set[bytes]:
    with VerdictLog(path) as log:
        return log.done


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.jsonl"


def test_what_is_written_is_remembered(path: Path) -> None:
    write(path, "a.jpg", "sub/b.jpg")
    assert [line["path"] for line in read(path)] == ["a.jpg", "sub/b.jpg"]
    assert remembered(path) == {found("a.jpg").key, found("sub/b.jpg").key}
    assert found("a.jpg", size=4).key not in remembered(path)
    assert found("a.jpg", mtime_ns=8).key not in remembered(path)


def test_any_name_that_a_file_can_have(path: Path) -> None:
    names = ["ä.jpg", os.fsdecode(b"\xff\xfe.jpg"), 'quote".jpg', "line\nbreak.jpg", "\\.jpg"]
    write(path, *names)
    assert len(path.read_text().splitlines()) == len(names)
    assert remembered(path) == {found(name).key for name in names}


@settings(max_examples=60)
@given(cut=st.integers(min_value=0))
def test_a_line_cut_anywhere_is_as_if_never_written(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "verdicts.jsonl"
    write(path, "a.jpg", "b.jpg")
    data = path.read_bytes()
    cut %= len(data) + 1
    path.write_bytes(data[:cut])
    write(path, "c.jpg")
    whole = [
        line["path"]
        for line in map(json.loads, data[:cut].splitlines(True)[: data[:cut].count(b"\n")])
    ]
    assert [line["path"] for line in read(path)] == [*whole, "c.jpg"]


def test_zeros_that_a_crash_left(path: Path) -> None:
    write(path, "a.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(5000))
    assert remembered(path) == {found("a.jpg").key}
    assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_passed_over(path: Path) -> None:
    write(path, "a.jpg", "b.jpg", "c.jpg")
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(lines[0] + b"\0\0\xff" + lines[1][3:] + lines[2])
    with VerdictLog(path) as log:
        assert log.done == {found("a.jpg").key, found("c.jpg").key}
        assert log.odd == 1


@pytest.mark.parametrize(
    "data",
    [
        b"my notes\nand more\n",
        b"my notes",
        b"{}\n",
        b'{"path": "a.jpg", "score": 0.5}\n',
        b'{"path": "a.jpg", "size": true, "mtime_ns": 1}\n',
        b'{"path": "\\ud800", "size": 1, "mtime_ns": 1}\n',
        b'{"path": "a", "size": 1, "mtime_ns": 1}\nmy notes',
        b"x" * (1 << 18),
        b"[" * 100_000 + b"\n",
    ],
    ids=range(9),
)
def test_another_file_is_refused_and_left_alone(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(LogError, match="choose another --output"):
        VerdictLog(path)
    assert path.read_bytes() == data


def test_two_that_write_to_one_file(path: Path) -> None:
    with VerdictLog(path), pytest.raises(LogError, match="another process"):
        VerdictLog(path)
    assert remembered(path) == set()


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LogError, match="not a regular file"):
        VerdictLog(tmp_path / "pipe")


def test_a_rotation(path: Path) -> None:
    """The file is renamed, a new one opened: all is remembered, here and after a new start."""
    with VerdictLog(path) as log:
        log.append(found("a.jpg"), LINE)
        path.rename(path.with_name("verdicts.jsonl.1"))
        log.append(found("b.jpg"), LINE)
        log.reopen()
        log.append(found("c.jpg"), LINE)
        assert [line["path"] for line in read(path)] == ["c.jpg"]
        log.reopen()  # with nothing to do
        log.append(found("d.jpg"), LINE)
        assert [line["path"] for line in read(path)] == ["c.jpg", "d.jpg"]
    assert remembered(path) == {found(f"{name}.jpg").key for name in "abcd"}


def test_names_that_a_rotation_gives(path: Path) -> None:
    write(path, "0.jpg")
    line = path.read_bytes()
    names = ["verdicts.jsonl.2", "verdicts.jsonl-20260131", "verdicts.1.jsonl"]
    others = ["verdicts.jsonl.orig", "verdicts.jsonl.bak1", "other.jsonl.1", "verdicts.jsonlx"]
    for number, name in enumerate(names + others, 1):
        path.with_name(name).write_bytes(line.replace(b"0.jpg", b"%d.jpg" % number))
    packed = gzip.compress(line.replace(b"0.jpg", b"20.jpg"))
    path.with_name("verdicts.jsonl.3.gz").write_bytes(packed)
    path.with_name("verdicts.jsonl.4.gz").write_bytes(packed[:-9])
    path.with_name("verdicts.jsonl.5.gz").write_bytes(b"no gzip")
    assert remembered(path) == {found(f"{n}.jpg").key for n in (0, 1, 2, 3, 20)}


def test_a_new_file_that_is_something_else_is_not_taken(path: Path) -> None:
    with VerdictLog(path) as log:
        log.append(found("a.jpg"), LINE)
        path.rename(path.with_name("verdicts.jsonl.1"))
        path.write_bytes(b"my notes\n")
        for _ in range(2):
            with pytest.raises(LogError):
                log.reopen()
        log.append(found("b.jpg"), LINE)
        assert path.read_bytes() == b"my notes\n"
        assert len(read(path.with_name("verdicts.jsonl.1"))) == 2


def test_a_write_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VerdictLog(path) as log:
        log.append(found("a.jpg"), LINE)
        before = path.read_bytes()

        def full(_handle: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                log.append(found("b.jpg"), LINE)
        assert path.read_bytes() == before
        assert found("b.jpg").key not in log.done
        log.append(found("b.jpg"), LINE)
        assert [line["path"] for line in read(path)] == ["a.jpg", "b.jpg"]


def test_what_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    image = tmp_path / "sub" / "a.jpg"
    image.write_bytes(b"12345")
    (tmp_path / "link.jpg").symlink_to(image)
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing")
    seen = look_at(tmp_path, image)
    assert seen == Found(image, "sub/a.jpg", 5, image.stat().st_mtime_ns)
    assert seen.key == key_of("sub/a.jpg", 5, image.stat().st_mtime_ns)
    linked = look_at(tmp_path, tmp_path / "link.jpg")
    assert linked is not None
    assert (linked.name, linked.size) == ("link.jpg", 5)
    for name in ("broken.jpg", "sub", "nothing", "nul\0.jpg"):
        assert look_at(tmp_path, tmp_path / name) is None


@pytest.mark.parametrize("folder", [".", "in", "./in", "in/"])
def test_a_name_begins_at_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """However that was given: what is remembered must not depend on it."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "in" if folder == "." else tmp_path)
    scan = Scan(Path(folder), suffixes(), 0.0)
    assert [found.name for found in scan.ready(set(), lambda: True)] == ["sub/a.jpg"]
