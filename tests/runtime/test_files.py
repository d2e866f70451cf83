"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qmdd.runtime.files import folder_in_place, locked, sha256_of, write_atomically
from qmdd.runtime.renames import exchange, rename_to_free

NOT_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below ``folder``, hidden ones too, with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def _build(
    target: Path,
    then: Callable[[Path], object] = lambda work: None,
    *,
    replace: bool = False,
    marker: str | None = None,
) -> None:
    """Make a folder with one file in place of ``target``; ``then`` runs last in the block."""
    with folder_in_place(target, replace=replace, marker=marker) as work:
        (work / "new").write_bytes(b"new")
        then(work)


def _raise(error: BaseException | type[BaseException]) -> Callable[[Path], object]:
    def then(_: Path) -> None:
        raise error

    return then


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder ``out`` with one file in it."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_bytes(b"old")
    return target


OLD = {"out": None, "out/old": b"old"}
NEW = {"out": None, "out/new": b"new"}


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data[:size]).hexdigest()


def test_written_file_has_the_content_and_the_users_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    mask = os.umask(0o027)
    try:
        write_atomically(path, b"new")
    finally:
        os.umask(mask)
    assert _tree(tmp_path) == {"file": b"new"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, _full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert _tree(tmp_path) == {"file": b"old"}


def test_writing_over_a_folder_or_into_none_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "folder", tmp_path / "absent" / "file"):
        with pytest.raises(OSError, match="directory"):
            write_atomically(target, b"new")
    assert _tree(tmp_path) == {"folder": None}


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    name = "x" * 255
    write_atomically(tmp_path / name, b"new")
    assert _tree(tmp_path) == {name: b"new"}


def test_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out"
    with folder_in_place(target) as work:
        (work / "sub").mkdir()
        (work / "sub" / "file").write_bytes(b"1")
        assert not target.exists()
        assert work.parent == target.parent
    assert _tree(target) == {"sub": None, "sub/file": b"1"}
    assert os.listdir(target.parent) == ["out"]


def test_folder_has_the_users_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with folder_in_place(tmp_path / "out"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_interruption_leaves_nothing_not_even_parents(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        _build(tmp_path / "a" / "b" / "out", _raise(error))
    assert _tree(tmp_path) == {}


def test_interruption_keeps_parents_that_others_use_by_now(tmp_path: Path) -> None:
    def then(_: Path) -> None:
        (tmp_path / "a" / "other").write_bytes(b"theirs")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path / "a" / "b" / "out", then)
    assert _tree(tmp_path) == {"a": None, "a/other": b"theirs"}


def test_existing_folder_is_refused_unless_replaced(tmp_path: Path, old: Path) -> None:
    with pytest.raises(FileExistsError, match="out exists"):
        _build(old)
    assert _tree(tmp_path) == OLD
    _build(old, lambda _: _tree(old) == {"old": b"old"} or pytest.fail("gone"), replace=True)
    assert _tree(tmp_path) == NEW


def test_interruption_keeps_the_folder_that_was_to_be_replaced(tmp_path: Path, old: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _build(old, _raise(KeyboardInterrupt), replace=True)
    assert _tree(tmp_path) == OLD


@pytest.fixture
def in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system where two names cannot be exchanged."""
    monkeypatch.setattr("qmdd.runtime.files.exchange", lambda _one, _other: False)


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "I/O error")])
@pytest.mark.usefixtures("in_two_steps")
def test_failure_while_swapping_restores_the_old_folder(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, failing: int, error: BaseException
) -> None:
    """Rename 1 moves the old folder aside, rename 2 the new one into place."""
    real, calls = os.replace, []

    def replace(source: Path, destination: Path) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise error
        real(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(type(error)):
        _build(old, replace=True)
    assert _tree(tmp_path) == OLD


@pytest.mark.parametrize("done", [1, 2])
@pytest.mark.usefixtures("in_two_steps")
def test_interruption_just_after_a_rename_leaves_one_whole_folder(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    real, calls = os.replace, []

    def replace(source: Path, destination: Path) -> None:
        real(source, destination)
        calls.append(source)
        if len(calls) == done:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        _build(old, replace=True)
    assert _tree(tmp_path) == (OLD if done == 1 else NEW)


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="not a folder"):
        _build(tmp_path / "out", replace=replace)
    assert _tree(tmp_path) == {"out": b"precious"}


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_never_replaced(tmp_path: Path, dangling: bool) -> None:
    if not dangling:
        (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with pytest.raises(FileExistsError, match="not a folder"):
        _build(tmp_path / "out", replace=True)
    assert (tmp_path / "out").is_symlink()


def test_a_folder_without_the_marker_is_not_replaced(tmp_path: Path, old: Path) -> None:
    """A mistyped output must not cost the user a folder of photos."""
    with pytest.raises(FileExistsError, match=r"other files .there is no manifest\.json"):
        _build(old, replace=True, marker="manifest.json")
    assert _tree(tmp_path) == OLD


@pytest.mark.parametrize("holding", [[], ["manifest.json"], ["manifest.json", "other"]])
def test_a_folder_with_the_marker_or_without_anything_is_replaced(
    tmp_path: Path, holding: list[str]
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for name in holding:
        (target / name).write_bytes(b"")
    _build(target, replace=True, marker="manifest.json")
    assert _tree(tmp_path) == NEW


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_appears_meanwhile_is_not_lost(tmp_path: Path, replace: bool) -> None:
    target = tmp_path / "out"

    def then(_: Path) -> None:
        target.mkdir()
        (target / "old").write_bytes(b"old")

    with pytest.raises(FileExistsError):
        _build(target, then, replace=replace, marker="manifest.json")
    assert _tree(tmp_path) == OLD


@pytest.mark.parametrize("below", ["file/out", "file/deeper/out"])
def test_a_file_among_the_parents_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="is a file"):
        _build(tmp_path / below)
    assert _tree(tmp_path) == {"file": b""}


@NOT_ROOT
def test_a_parent_that_may_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(PermissionError):
        _build(locked / "deep" / "out")
    assert _tree(tmp_path) == {"locked": None}


def test_a_parent_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for root, whom permissions do not stop: a read-only file system."""
    real = Path.mkdir

    def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if path.name.startswith(".out"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(OSError, match="Read-only"):
        _build(tmp_path / "deep" / "out")
    assert _tree(tmp_path) == {}


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_full_disk_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr("qmdd.runtime.renames._renameat2", lambda *_: False)
    with pytest.raises(OSError, match="No space left"):
        _build(tmp_path / "out", lambda _: monkeypatch.setattr(os, call, _full))
    assert _tree(tmp_path) == {}


def test_full_disk_inside_the_block_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        _build(tmp_path / "deep" / "out", _full)
    assert _tree(tmp_path) == {}


def test_relative_targets_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _build(Path("out"))
    with pytest.raises(FileExistsError):
        _build(Path())
    assert _tree(tmp_path) == NEW


def _killed(work: Callable[[], object]) -> None:
    """Run ``work`` in a process of its own, which is killed or ends."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_while_a_folder_is_replaced_there_is_always_one(tmp_path: Path, old: Path) -> None:
    """Somebody who looks all the time finds the one or the other, whole."""
    (tmp_path / "other").mkdir()
    if not exchange(old, tmp_path / "other"):
        pytest.skip("this file system cannot exchange two names")
    missing, ended = [], threading.Event()

    def look() -> None:
        while not ended.is_set():
            try:
                os.stat(old)
            except FileNotFoundError:
                missing.append(1)

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(100):
        _build(old, replace=True)
    ended.set()
    looking.join()
    assert not missing


@pytest.mark.parametrize("step", ["inside", "exchanged"])
def test_what_a_killed_run_left_goes_with_the_next(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def work() -> None:
        if step == "exchanged":
            monkeypatch.setattr("qmdd.runtime.files.sync_folder", _kill)
            monkeypatch.setattr("qmdd.runtime.files._sync", lambda _: None)
        _build(old, _kill if step == "inside" else lambda _: None, replace=True)

    _killed(work)
    assert set(os.listdir(old)) == ({"old"} if step == "inside" else {"new"})
    assert len(os.listdir(tmp_path)) == 2
    _build(old, replace=True)
    assert _tree(tmp_path) == NEW


@pytest.mark.usefixtures("in_two_steps")
def test_a_kill_between_two_steps_is_recovered_from(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: Path, destination: Path) -> None:
        real(source, destination)
        _kill()

    def work() -> None:
        monkeypatch.setattr(os, "replace", replace)
        _build(old, replace=True)

    _killed(work)
    assert not old.exists()
    with pytest.raises(FileExistsError):  # it is there again, and replacing was not asked for
        _build(old)
    assert _tree(old) == {"old": b"old"}
    _build(old, replace=True)
    assert _tree(tmp_path) == NEW


def test_what_a_killed_write_left_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        monkeypatch.setattr(os, "fsync", _kill)
        write_atomically(tmp_path / "file", b"half")

    _killed(work)
    assert len(os.listdir(tmp_path)) == 1
    write_atomically(tmp_path / "file", b"new")
    assert _tree(tmp_path) == {"file": b"new"}


def test_nobody_removes_what_another_works_on(tmp_path: Path) -> None:
    with folder_in_place(tmp_path / "out") as first:
        (first / "first").write_bytes(b"")
        _build(tmp_path / "out")
        assert (first / "first").exists()
        (tmp_path / "out" / "new").unlink()
        (tmp_path / "out").rmdir()
    assert _tree(tmp_path) == {"out": None, "out/first": b""}


def test_only_what_looks_like_ours_is_removed(tmp_path: Path) -> None:
    """Names of another form, links, and what is locked stay."""
    (tmp_path / "precious").write_bytes(b"1")
    (tmp_path / f".file.{'0' * 16}").symlink_to(tmp_path / "precious")
    (tmp_path / f".file.{'1' * 15}").write_bytes(b"")
    (tmp_path / f".file.{'x' * 16}").write_bytes(b"")
    (tmp_path / f".other.{'2' * 16}").write_bytes(b"")
    os.mkfifo(tmp_path / f".file.{'3' * 16}")
    locked_one = tmp_path / f".file.{'4' * 16}"
    locked_one.write_bytes(b"")
    before = set(os.listdir(tmp_path))
    with locked_one.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        write_atomically(tmp_path / "file", b"new")
    gone = before - set(os.listdir(tmp_path))
    assert gone == {f".file.{'3' * 16}"}
    assert (tmp_path / "precious").read_bytes() == b"1"


def test_two_at_once_into_one_place_never_mix(tmp_path: Path, old: Path) -> None:
    """Two processes replace the same folder again and again; whoever looks sees one's work."""

    def work(name: bytes) -> None:
        for _ in range(50):
            with folder_in_place(old, replace=True) as folder:
                (folder / "a").write_bytes(name)
                (folder / "b").write_bytes(name)

    children = []
    for name in (b"first", b"second"):
        child = os.fork()
        if not child:
            code = 1
            try:
                work(name)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    ended: dict[int, int] = {}
    while len(ended) < 2:
        for child in children:
            process, status = os.waitpid(child, os.WNOHANG) if child not in ended else (0, 0)
            if process:
                ended[process] = status
        handle = os.open(old, os.O_RDONLY)  # the folder itself, whatever takes its name
        held = Path(f"/proc/self/fd/{handle}")
        with contextlib.suppress(FileNotFoundError):  # it is being removed since
            names = os.listdir(held)
            found = {(held / name).read_bytes() for name in names}
            assert found in ({b"old"}, {b"first"}, {b"second"}) or len(names) < 2
        os.close(handle)
    assert set(ended.values()) == {0}
    assert set(_tree(tmp_path)) == {"out", "out/a", "out/b"}
    assert _tree(tmp_path)["out/a"] == _tree(tmp_path)["out/b"]


def test_a_locked_folder_is_not_replaced(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmdd.runtime.files._PATIENCE", 2)
    with locked(old), pytest.raises(BlockingIOError, match="in use by another process"):
        _build(old, replace=True)
    assert _tree(tmp_path) == OLD


def test_a_file_system_without_locks_can_be_written_to(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_handle: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    work = tmp_path / f".out.{'0' * 16}"
    work.mkdir()
    _build(old, replace=True)
    write_atomically(tmp_path / "file", b"new")
    # Whose that is nobody can tell there.
    assert _tree(tmp_path) == {**NEW, "file": b"new", work.name: None}


@pytest.mark.parametrize("known", [True, False])
def test_a_free_name_is_renamed_to_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if not known:
        monkeypatch.setattr("qmdd.runtime.renames._renameat2", lambda *_: False)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    with pytest.raises(FileExistsError):
        rename_to_free(tmp_path / "a", tmp_path / "b")
    rename_to_free(tmp_path / "a", tmp_path / "c")
    assert _tree(tmp_path) == {"b": None, "b/file": b"b", "c": None, "c/file": b"a"}


def test_an_exchange_needs_both(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="b"):
        exchange(tmp_path / "a", tmp_path / "b")


def test_the_name_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut the new content, under its name: the folder is synced after the rename."""
    real, synced = os.fsync, []

    def fsync(handle: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), (tmp_path / "file").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "file", b"new")
    assert (os.fspath(tmp_path), True) in synced
    _build(tmp_path / "out")
    assert synced[-1] == (os.fspath(tmp_path), True)
