"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .leftovers import make_file, make_folder, remove_dead
from .renames import exchange, rename_to_free, sync_folder

_BLOCK = 1 << 20
#: Tenths of a second for which a folder that is to be replaced may be in use.
_PATIENCE = 10


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    state = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` beside ``path``, rename it into place; ``OSError`` leaves nothing behind.

    What earlier writes to ``path`` left that were killed is removed first.
    """
    target = Path(path)
    remove_dead(target.name, target.parent)
    work, handle = make_file(target)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(work, target)  # while the lock is held: nobody takes it for a dead one's
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(work)
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def folder_in_place(
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    marker: str | None = None,
    work_in: Path | None = None,
) -> Iterator[Path]:
    """Yield a fresh folder beside ``target``; renamed to ``target`` when the block ends well.

    If the block raises (an interruption too), the folder is removed, with any parent that was made
    for it, and ``target`` is as before. With ``replace``, an existing ``target`` folder changes
    places with it in one step, and is removed last: whenever the process is killed, there is one
    whole folder. What killed ones left is removed by the next that is written to the same place.

    Args:
        marker: with ``replace``, the name of a file that an existing folder must hold (unless it
            is empty) before it is replaced; keeps a mistyped output from erasing other files.
        work_in: an existing folder of the same file system to make it in, where whoever reads
            ``target``'s own folder must not see it half made.

    Raises:
        FileExistsError: ``target`` exists and ``replace`` is false; or it is no folder, a link,
            or a folder without ``marker``.
        BlockingIOError: ``target`` is to be replaced, and :func:`locked` by somebody.
        OSError: a folder cannot be written.
    """
    final = Path(os.path.abspath(target))
    where = work_in or final.parent
    restore_aside(final)
    check_replaceable(final, replace, marker)
    made = [folder for folder in final.parents if not folder.exists()]
    remove_dead(final.name, where)
    with contextlib.ExitStack() as ends:
        try:
            _make_parents(final.parent)
            work, handle = make_folder(final, where)
            # Unless it was renamed: then nothing has that name, or what was replaced.
            ends.callback(shutil.rmtree, work, ignore_errors=True)
            ends.callback(os.close, handle)
            yield work
            _sync(work)
            _put(work, final, replace, marker)
        except BaseException:
            restore_aside(final)
            ends.close()
            with contextlib.suppress(OSError):  # not empty: somebody else uses it by now
                for folder in made:
                    folder.rmdir()
            raise


def _put(work: Path, final: Path, replace: bool, marker: str | None) -> None:
    """Let ``work`` take the place ``final``."""
    check_replaceable(final, replace, marker)
    if not os.path.lexists(final):
        rename_to_free(work, final)
    else:
        with _locked_soon(final):
            if not exchange(work, final):
                put_aside(work, final)
    sync_folder(final.parent)


@contextlib.contextmanager
def _locked_soon(folder: Path) -> Iterator[None]:
    """:func:`locked`; another one that just replaces the folder too is waited for."""
    with contextlib.ExitStack() as held:
        for left in reversed(range(_PATIENCE)):
            try:
                held.enter_context(locked(folder))
                break
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(0.1)
            except OSError:  # no locks on this file system
                break
        yield


def _aside(final: Path) -> Path:
    """Where ``final`` waits while there is another in its place; one name, so that it is found."""
    digest = hashlib.sha256(os.fsencode(final.name)).hexdigest()[:16]
    return final.parent / f".{final.name[:40]}.{digest}.old"


def put_aside(work: Path, final: Path) -> None:
    """Replace the folder ``final`` where names cannot be exchanged: in two steps.

    A process that is killed between them leaves no ``final``; :func:`restore_aside` brings the old
    one back. The caller holds its lock.
    """
    aside = _aside(final)
    os.replace(final, aside)
    os.replace(work, final)
    shutil.rmtree(aside, ignore_errors=True)


def restore_aside(final: Path) -> None:
    """Bring back the folder ``final`` that a replacement put aside and did not get to the end of.

    Raises:
        OSError: it cannot be moved.
    """
    aside = _aside(final)
    if not aside.is_dir() or aside.is_symlink():
        return
    with contextlib.suppress(BlockingIOError), locked(aside):  # else it is being replaced now
        if os.path.lexists(final):
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(aside, final)


def check_replaceable(final: Path, replace: bool, marker: str | None = None) -> None:
    """What :func:`folder_in_place` would refuse, refused before any work; arguments as there.

    Raises:
        FileExistsError: as :func:`folder_in_place`.
    """
    if not os.path.lexists(final):
        return
    if final.is_symlink() or not final.is_dir():
        raise FileExistsError(f"{final} exists and is not a folder; choose another output")
    if not replace:
        raise FileExistsError(f"{final} exists")
    if marker and any(final.iterdir()) and not (final / marker).exists():
        raise FileExistsError(
            f"{final} holds other files (there is no {marker} in it) and is not replaced; "
            "choose another output or empty it yourself"
        )


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Only one process at a time is inside for the same ``folder``, which must exist.

    Raises:
        BlockingIOError: another is; names the folder.
        OSError: no such folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "in use by another process", f"{folder}") from error
        yield
    finally:
        os.close(handle)


def _make_parents(parent: Path) -> None:
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"{parent}: a part of this path is a file; choose another output"
        ) from error


def _sync(work: Path) -> None:
    """Let the contents of ``work`` be on the disk before its name is."""
    for folder, _, names in os.walk(work):
        for name in names:
            with open(os.path.join(folder, name), "rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(folder))
