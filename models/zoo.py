"""The checkpoints that travel with the project: found, listed and described without torch.

Beside ``NAME.safetensors`` in ``zoo_data`` lie its record, ``NAME.json`` (:mod:`.zoo_record`), and
its model card, ``NAME.md``, which is generated from the record (:mod:`.zoo_card`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from .errors import CheckpointError, ModelError
from .zoo_record import Record, read_record

FOLDER = Path(__file__).parent / "zoo_data"
#: A longer header is none of ours.
_MAX_HEADER = 1 << 20


def builtin_checkpoints() -> list[Path]:
    """All built-in checkpoint files, in name order."""
    return sorted(FOLDER.glob("*.safetensors"))


def builtin_checkpoint(arch: str, bits: int) -> Path | None:
    """The built-in checkpoint of ``arch`` at ``bits``, or ``None``."""
    path = FOLDER / f"{arch}-w{bits}a{bits}.safetensors"
    return path if path.is_file() else None


def checkpoint_named(given: Path) -> Path:
    """The built-in checkpoint called ``given``, unless a file of that name exists.

    Whatever is neither comes back as it was, for the reader of files to complain about.
    """
    if given.exists() or given.name != str(given):
        return given
    return next((path for path in builtin_checkpoints() if path.stem == given.name), given)


class Entry(NamedTuple):
    """A built-in checkpoint and what is known of it.

    Attributes:
        name: ``resnet23-w2a2``.
        path: its file.
        bytes: the file's size.
        config: the detector's configuration, from the file's header.
        record: what was measured; ``None`` if there is no record, or it is of another file.
        problem: why there is no record, else empty.
    """

    name: str
    path: Path
    bytes: int
    config: dict[str, Any]
    record: Record | None
    problem: str


def entries() -> list[Entry]:
    """Every built-in checkpoint, the header of its file read and its record's hash compared.

    Raises:
        ModelError: a file or a record cannot be read.
    """
    return [_entry(path) for path in builtin_checkpoints()]


def entry_of(name: str) -> Entry:
    """The built-in checkpoint called ``name``.

    Raises:
        ModelError: there is none of that name.
    """
    paths = {path.stem: path for path in builtin_checkpoints()}
    if name not in paths:
        near = difflib.get_close_matches(name, paths, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(paths) or "none"
        raise ModelError(f"no built-in checkpoint {name!r} (built in: {known}){hint}")
    return _entry(paths[name])


def card_of(name: str) -> str:
    """The model card of the built-in checkpoint ``name``, Markdown.

    Raises:
        ModelError: no such checkpoint, or it has no card.
    """
    path = entry_of(name).path.with_suffix(".md")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: the model card cannot be read: {error.strerror}") from error


def _entry(path: Path) -> Entry:
    metadata = header_metadata(path)
    try:
        config = json.loads(metadata["config"])
        if not {"arch", "bits"} <= config.keys():
            raise ValueError("neither arch nor bits")
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: its header holds no configuration") from error
    record, problem = None, "no record"
    if path.with_suffix(".json").exists():
        record, problem = read_record(path.with_suffix(".json")), ""
        if hashlib.sha256(path.read_bytes()).hexdigest() != record.sha256:
            record, problem = None, "its record is of another file"
    return Entry(path.stem, path, path.stat().st_size, config, record, problem)


def header_metadata(path: Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file; no tensor is read.

    Raises:
        CheckpointError: no such header.
    """
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size <= _MAX_HEADER else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header cannot be read: {error}") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: not a safetensors file with metadata")
    return metadata
