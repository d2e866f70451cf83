"""Bundles: a folder with a model, what is known about it, and the means to check it (DESIGN 5).

Nothing in the folder is trusted before it is checked: names must stay inside the folder, sizes are
bounded, and every file that the manifest lists must have the SHA-256 that stands there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from .contract import INPUT, OUTPUT
from .errors import BundleError
from .files import sha256_of
from .onnx_limits import MAX_MODEL_BYTES

#: The manifest's own version.
SCHEMA = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
#: The same model for our native operators, in bundles for CPUs.
NATIVE_MODEL = "model.native.onnx"
GOLDEN = "parity/golden.safetensors"
#: A larger manifest is refused unread.
MAX_MANIFEST_BYTES = 4 << 20
#: A larger file is refused unread (2 GiB is also the limit of an ONNX file).
MAX_FILE_BYTES = 2 << 30
#: More files, or bytes of all of them, no bundle of ours has: hashing them would take for ever.
MAX_FILES, MAX_ALL_BYTES = 1000, 8 << 30
#: No image has a longer side, so no manifest may ask for one.
MAX_SIDE = 1 << 16

_AGAIN = "copy the bundle again or export it anew"
#: How often a bundle that is replaced while it is being opened is opened anew.
_TRIES = 5
_CHANGED = "the bundle was replaced meanwhile; run the same command again"
_HASH = re.compile(r"[0-9a-f]{64}")
#: Another contract needs another runtime.
_CONTRACT = {"input": INPUT, "output": OUTPUT}


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The manifest as UTF-8 JSON, keys sorted, the same bytes for the same content.

    Raises:
        BundleError: not plain JSON data, a number that is not finite, or too large.
    """
    try:
        text = json.dumps(manifest, sort_keys=True, indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"manifest cannot be written as JSON: {error}") from error
    data = text.encode() + b"\n"
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"manifest takes {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    return data


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: its folder.
        manifest: what ``manifest.json`` holds; keys that are not known here are kept.
        manifest_sha256: of that file's bytes; it vouches for all files.
    """

    path: Path
    manifest: dict[str, Any]
    manifest_sha256: str = ""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check: bool = True) -> Bundle:
        """Open the bundle in folder ``path``; if it is replaced meanwhile, the new one.

        Args:
            check: compare every listed file's SHA-256; without it, names and sizes only.

        Raises:
            BundleError: no such folder, a manifest that is not ours, or a file that is missing,
                changed, too large or outside the folder. The message names the file.
        """
        folder = Path(path)
        if not os.path.lexists(folder):
            raise BundleError(f"{folder}: no such bundle; `qmdd export` makes one")
        if not folder.is_dir():
            raise BundleError(f"{folder}: not a folder; give the bundle's folder, not a file of it")
        data, tries = _read_manifest(folder), _TRIES
        while True:
            try:
                manifest = _checked(folder, data, check)
            except BundleError:
                tries -= 1
                before, data = data, _read_manifest(folder)
                if data == before or not tries:
                    raise
            else:
                return cls(folder, manifest, hashlib.sha256(data).hexdigest())

    def read(self, name: str) -> bytes:
        """The bytes of file ``name``, which are those whose SHA-256 the manifest lists.

        What is loaded comes from here: a file that is opened by its name once more may be another
        one by then.

        Raises:
            BundleError: it has changed since the bundle was opened, or is larger than any model of
                ours; names it.
        """
        entry = self.manifest["files"][name]
        path = _inside(self.path, name, _CHANGED)
        if entry["bytes"] > MAX_MODEL_BYTES:
            raise BundleError(
                f"{path}: {entry['bytes'] >> 20} MiB, more than {MAX_MODEL_BYTES >> 20} MiB: so "
                "not a model of ours; export it anew"
            )
        try:
            with open(path, "rb") as stream:
                data = stream.read(entry["bytes"] + 1)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise BundleError(f"{path}: changed; {_CHANGED}")
        return data

    def check_unchanged(self) -> None:
        """Refuse what was found if this is no longer the bundle that was opened.

        For work that reads many files of it, one after another.

        Raises:
            BundleError: it is another one by now, or damaged.
        """
        if Bundle.open(self.path).manifest != self.manifest:
            raise BundleError(f"{self.path}: changed; {_CHANGED}")

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL

    @property
    def native_path(self) -> Path | None:
        """The ONNX file for the native operators, ``None`` in a bundle without one."""
        return self.path / NATIVE_MODEL if NATIVE_MODEL in self.manifest["files"] else None

    @property
    def golden_path(self) -> Path | None:
        """The parity file, ``None`` in a bundle without one."""
        return self.path / GOLDEN if GOLDEN in self.manifest["files"] else None

    @property
    def arch(self) -> str:
        """The detector's architecture, such as ``resnet23``."""
        return str(self.manifest["arch"])

    @property
    def bits(self) -> int:
        """Width of weights and activations."""
        return int(self.manifest["bits"])

    @property
    def target(self) -> str:
        """Name of the target that the model was lowered for."""
        return str(self.manifest["target"])

    @property
    def runtime(self) -> str:
        """Name of the runtime that the model was lowered for."""
        return str(self.manifest.get("runtime", "onnxruntime"))

    @property
    def threshold(self) -> float:
        """Score above which an image is called fake."""
        return float(self.manifest["threshold"])

    @property
    def model_bytes(self) -> int:
        """Size of the ONNX file in bytes."""
        return int(self.manifest["files"][MODEL]["bytes"])

    @property
    def sides(self) -> dict[str, int]:
        """``min_side``, ``multiple`` and ``max_side``: what :func:`~.preprocess.prepare` takes."""
        contract = self.manifest["input"]
        return {name: contract[name] for name in ("min_side", "multiple", "max_side")}


def _checked(folder: Path, data: bytes, check: bool) -> dict[str, Any]:
    """The manifest in ``data``, if it and the files that it lists are as they should be."""
    where = f"{folder / MANIFEST}"
    manifest = _manifest_from_bytes(where, data)
    _check_manifest(where, manifest)
    for name, entry in manifest["files"].items():
        _check_entry(where, name, entry)
    _check_total(where, manifest["files"])
    for name, entry in manifest["files"].items():
        _check_file(folder, name, entry, check)
    return manifest


def _read_manifest(folder: Path) -> bytes:
    where = _inside(folder, MANIFEST, f"it is not a bundle, or not a whole one; {_AGAIN}")
    try:
        with open(where, "rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{where}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{where}: larger than {MAX_MANIFEST_BYTES >> 20} MiB, so not one of ours; {_AGAIN}"
        )
    return data


def _manifest_from_bytes(where: str, data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        manifest = json.loads(data.decode(), parse_constant=refuse)
        # JSON can spell half a character; nothing can write it out again.
        json.dumps(manifest, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not JSON ({error}); {_AGAIN}") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{where}: must hold an object; {_AGAIN}")
    return manifest


def _check_manifest(where: str, manifest: dict[str, Any]) -> None:
    """Everything that the runtime relies on; further keys are free."""
    schema = manifest.get("schema")
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{where}: schema is {schema!r}, so not a qmdd bundle; {_AGAIN}")
    if schema > SCHEMA:
        raise BundleError(
            f"{where}: schema {schema} is newer than this qmdd reads ({SCHEMA}); upgrade qmdd"
        )
    for key, kind in (("arch", str), ("bits", int), ("target", str), ("files", dict)):
        if type(manifest.get(key)) is not kind:
            raise BundleError(f"{where}: {key} must be {kind.__name__}; {_AGAIN}")
    threshold: Any = manifest.get("threshold")
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
        raise BundleError(f"{where}: threshold is {threshold!r}, not within 0..1; {_AGAIN}")
    for part, expected in _CONTRACT.items():
        found = manifest.get(part)
        if not isinstance(found, dict) or any(found.get(k) != v for k, v in expected.items()):
            raise BundleError(
                f"{where}: {part} is not {json.dumps(expected)}; this qmdd cannot run such a model"
            )
    _check_sides(where, manifest["input"])
    if MODEL not in manifest["files"]:
        raise BundleError(f"{where}: files does not list {MODEL}; {_AGAIN}")


def _check_sides(where: str, contract: dict[str, Any]) -> None:
    sides = [contract.get(name) for name in ("min_side", "multiple", "max_side")]
    if any(type(side) is not int for side in sides):
        raise BundleError(f"{where}: input needs whole min_side, multiple, max_side; {_AGAIN}")
    low, multiple, high = (int(side or 0) for side in sides)
    if not 1 <= multiple <= low <= high <= MAX_SIDE or low % multiple:
        raise BundleError(
            f"{where}: input sides {low}..{high} in steps of {multiple} make no sense; {_AGAIN}"
        )


def _check_entry(where: str, name: str, entry: object) -> None:
    parts = name.split("/")
    if any(p in ("", ".", "..") for p in parts) or re.search(r"[\\:\x00-\x1f]", name):
        raise BundleError(f"{where}: file name {name!r} is not allowed in a bundle")
    if (
        not isinstance(entry, dict)
        or type(entry.get("bytes")) is not int
        or not isinstance(entry.get("sha256"), str)
        or not _HASH.fullmatch(entry["sha256"])
    ):
        raise BundleError(f"{where}: {name!r} needs its sha256 (64 hex digits) and bytes; {_AGAIN}")


def _check_total(where: str, files: dict[str, dict[str, Any]]) -> None:
    """Names may be links to one large file: each would be read anew."""
    total = sum(entry["bytes"] for entry in files.values())
    if len(files) > MAX_FILES or total > MAX_ALL_BYTES:
        raise BundleError(
            f"{where}: lists {len(files):,} files of {total >> 20:,} MiB, so not one of ours; "
            f"{_AGAIN}"
        )


def _inside(folder: Path, name: str, missing: str) -> Path:
    """The regular file ``name`` of the bundle, after links; :class:`BundleError` if it is not."""
    path = folder / name
    try:
        root, real = os.path.realpath(folder), os.path.realpath(path)
        if os.path.commonpath([root, real]) != root:
            raise BundleError(f"{path}: leads out of the bundle; {_AGAIN}")
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise BundleError(f"{path}: not a file; {_AGAIN}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{path}: missing; {missing}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    return path


def _check_file(folder: Path, name: str, entry: dict[str, Any], check: bool) -> None:
    path = _inside(folder, name, _AGAIN)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BundleError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; {_AGAIN}")
        if size != entry["bytes"]:
            raise BundleError(
                f"{path}: {size} bytes where the manifest says {entry['bytes']}; {_AGAIN}"
            )
        if check and sha256_of(path) != entry["sha256"]:
            raise BundleError(f"{path}: its SHA-256 differs from the manifest's; {_AGAIN}")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
