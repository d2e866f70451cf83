"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    state = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def _beside(target: Path, folder: Path | None = None) -> Path:
    """A hidden name in the same folder, so that a rename stays on one file system."""
    return (folder or target.parent) / f".{target.name[:40]}.{secrets.token_hex(8)}"


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` beside ``path``, rename it into place; ``OSError`` leaves nothing behind."""
    target = Path(path)
    work = _beside(target)
    try:
        # Made by os.open, and not by tempfile, so that the user's umask decides who may read it.
        handle = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(work, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(work)
        raise


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
    for it, and ``target`` is as before. With ``replace``, an existing ``target`` folder is moved
    aside first and removed last.

    Args:
        marker: with ``replace``, the name of a file that an existing folder must hold (unless it
            is empty) before it is replaced; keeps a mistyped output from erasing other files.
        work_in: an existing folder of the same file system to make it in, where whoever reads
            ``target``'s own folder must not see it half made.

    Raises:
        FileExistsError: ``target`` exists and ``replace`` is false; or it is no folder, a link,
            or a folder without ``marker``.
        OSError: a folder cannot be written.
    """
    final = Path(os.path.abspath(target))
    check_replaceable(final, replace, marker)
    made = [folder for folder in final.parents if not folder.exists()]
    work, old = _beside(final, work_in), _beside(final)
    try:
        _make_parents(final.parent)
        work.mkdir()
        yield work
        _sync(work)
        check_replaceable(final, replace, marker)
        if final.exists():
            os.replace(final, old)
        os.replace(work, final)
    except BaseException:
        if old.exists() and not final.exists():
            os.replace(old, final)
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: somebody else uses it by now
            for folder in made:
                folder.rmdir()
        raise
    finally:
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)


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
    for folder, _, names in os.walk(work):
        for name in names:
            with open(os.path.join(folder, name), "rb") as stream:
                os.fsync(stream.fileno())
