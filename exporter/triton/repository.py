"""A model repository on disk, which a server may be reading while a version is added to it.

Triton takes every folder at the top for a model and every folder of a model whose name begins with
a number for a version. So a new model is made beside the repository and a new version under a
hidden name inside its model, and each is renamed into place: at any moment the server finds whole
models and whole versions. Nothing that is there is replaced but ``config.pbtxt``, in one step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from ...runtime.bundle import MANIFEST, Bundle
from ...runtime.files import folder_in_place, locked, write_atomically
from ..errors import ExportError
from .config import CONFIG, config_bytes, read_config
from .served import Served
from .settings import Settings

#: What lies at the top, by the name of its source in this package.
_TOP = {"client.py": "client.py", "repository.md": "README.md"}
#: Is in no folder: a file has nothing below it.
_NOTHING = "client.py/-"
#: A version that was being made when its export was killed.
_LEFT = re.compile(r"\.\d+\.[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True)
class Added:
    """What was written: the version's folder, its number, and whether the config was kept as is."""

    folder: Path
    version: int
    settings: Settings
    config_kept: bool


def add_version(repository: Path, what: Served, *, tuned: bool) -> Added:
    """Write ``what`` into ``repository``, as a new model's first version or the next of one.

    Args:
        repository: its folder, made if it is missing or empty.
        what: the version.
        tuned: the user asked for settings, so a configuration changed by hand cannot stay.

    Raises:
        ExportError: the folder is no model repository; the model there is another one, or not
            ours; another export is writing.
        OSError: it cannot be written; the repository is as before.
    """
    if not repository.is_dir() or not any(repository.iterdir()):
        return _new_repository(repository, what)
    _check_repository(repository)
    with _alone(repository):
        _write_top(repository)
        model = repository / what.settings.name
        if os.path.lexists(model):
            return _further_version(model, what, tuned)
        try:
            # Not inside the repository: a server would take it for a model.
            with folder_in_place(model, work_in=repository.resolve().parent) as work:
                _write_model(work, what)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise ExportError(
                f"{repository}: a file system of its own, so no model can be moved into it in one "
                "step; let the repository be a folder below it"
            ) from error
        return _added(repository, what.settings, 1)


def _new_repository(repository: Path, what: Served) -> Added:
    try:
        # An empty folder may be replaced, one that has got anything meanwhile may not.
        with folder_in_place(repository, replace=repository.is_dir(), marker=_NOTHING) as work:
            _write_top(work)
            _write_model(work / what.settings.name, what)
    except FileExistsError as error:
        raise ExportError(
            f"{repository}: is a file, or something was put there meanwhile; nothing was written: "
            "choose another --output, or run the same command again"
        ) from error
    return _added(repository, what.settings, 1)


def _check_repository(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and (entry / CONFIG).is_file():
            return
    raise ExportError(
        f"{folder}: holds other files and no model, so it is no model repository; choose another "
        "--output"
    )


@contextlib.contextmanager
def _alone(repository: Path) -> Iterator[None]:
    with contextlib.ExitStack() as inside:
        try:
            inside.enter_context(locked(repository))
        except BlockingIOError as error:
            raise ExportError(f"{repository}: another export is writing to it; wait") from error
        yield


def _further_version(model: Path, what: Served, tuned: bool) -> Added:
    config = model / CONFIG
    if model.is_symlink() or not config.is_file():
        raise ExportError(f"{model}: there, and no model with a {CONFIG}; choose another --name")
    held = read_config(config)
    reason = held.settings.refusal(what.settings)
    if reason is not None:
        raise ExportError(
            f"{model}: serves {reason}, so this cannot be a further version of it; choose another "
            "--name"
        )
    if held.edited and tuned:
        raise ExportError(
            f"{config}: was changed by hand and stays as it is; change it there, and leave the "
            "options of serving out"
        )
    for entry in model.iterdir():
        if _LEFT.fullmatch(entry.name):
            shutil.rmtree(entry, ignore_errors=True)
    number = 1 + max((int(n.name) for n in model.iterdir() if n.name.isdecimal()), default=0)
    settings = dataclasses.replace(
        what.settings, versions={**held.settings.versions, **_numbered(what.settings, number)}
    )
    # First the version: a killed export leaves it whole, and a configuration that serves it.
    with folder_in_place(model / str(number)) as work:
        _write_version(work, what)
    if not held.edited:
        write_atomically(config, config_bytes(settings))
    return Added(model / str(number), number, settings, held.edited)


def _numbered(settings: Settings, number: int) -> dict[str, dict[str, str]]:
    return {str(number): settings.versions["0"]}


def _added(repository: Path, settings: Settings, number: int) -> Added:
    numbered = dataclasses.replace(settings, versions=_numbered(settings, number))
    return Added(repository / settings.name / str(number), number, numbered, False)


def _write_model(folder: Path, what: Served) -> None:
    """A new model: its configuration and its first version."""
    settings = dataclasses.replace(what.settings, versions=_numbered(what.settings, 1))
    (folder / "1").mkdir(parents=True)
    (folder / CONFIG).write_bytes(config_bytes(settings))
    _write_version(folder / "1", what)


def _write_version(folder: Path, what: Served) -> None:
    """The bundle as it is, which ``qmdd verify`` reads there, and engines by Triton's names."""
    bundle = what.bundle
    for name in (MANIFEST, *bundle.manifest["files"]):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, place)
    if Bundle.open(folder).manifest != bundle.manifest:
        raise ExportError(f"{bundle.path}: was replaced meanwhile; run the same command again")
    for name, engine in what.plans.items():
        try:  # of the bundle's own engine a second name, where the file system has such
            os.link(folder / engine.relative_to(bundle.path), folder / name)
        except (OSError, ValueError):
            shutil.copyfile(engine, folder / name)


def _write_top(folder: Path) -> None:
    """The example and a page on how to serve, where they are not there yet."""
    sources = resources.files(__package__ or "qmdd.exporter.triton")
    for source, name in _TOP.items():
        if not os.path.lexists(folder / name):
            write_atomically(folder / name, (sources / source).read_bytes())
