"""What has to be on the device: the bundle's files, the wheels, and their hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from pathlib import Path
from typing import IO

from ..bundle import MANIFEST, Bundle
from ..errors import DeployError
from ..files import sha256_of
from .wheel import pack_wheel

#: pip reads the name: nothing in it may mean more than a name.
_WHEEL = re.compile(r"qmdd-[A-Za-z0-9_.+!-]+\.whl")
#: Further wheels, all together; more is no folder of wheels for a device.
MAX_WHEELS = 1000


@dataclasses.dataclass(frozen=True)
class Item:
    """A file for the device.

    Attributes:
        name: in its folder there, with ``/``.
        sha256: of its content, under which the device stores it.
        size: in bytes.
        source: where it is here, or its content.
    """

    name: str
    sha256: str
    size: int
    source: Path | bytes

    @classmethod
    def of(cls, name: str, source: Path | bytes) -> Item:
        """Of a file here, or of bytes.

        Raises:
            OSError: the file cannot be read.
        """
        if isinstance(source, bytes):
            return cls(name, hashlib.sha256(source).hexdigest(), len(source), source)
        return cls(name, sha256_of(source), source.stat().st_size, source)

    def open(self) -> IO[bytes]:
        """Its content, to be read.

        Raises:
            DeployError: it is not what it was.
        """
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        if sha256_of(self.source) != self.sha256:
            raise DeployError(f"{self.source}: changed since the deployment began; deploy again")
        return open(self.source, "rb")


def bundle_items(bundle: Bundle) -> list[Item]:
    """The bundle's files as its manifest lists them, and the manifest; nothing else in it.

    An engine that the bundle holds goes along: it may be for this device.

    Raises:
        DeployError: it is another bundle than the one that was opened.
    """
    items = [
        Item(name, entry["sha256"], entry["bytes"], bundle.path / name)
        for name, entry in sorted(bundle.manifest["files"].items())
    ]
    manifest = (bundle.path / MANIFEST).read_bytes()
    if bundle.manifest_sha256 and hashlib.sha256(manifest).hexdigest() != bundle.manifest_sha256:
        raise DeployError(f"{bundle.path}: was replaced meanwhile; deploy again")
    return [*items, Item.of(MANIFEST, manifest)]


def runtime_wheel(given: Path | None, platform: str | None) -> Item:
    """Qmdd's wheel: the one that is given, or one of this very qmdd.

    Raises:
        DeployError: no such file, or not a wheel of qmdd.
    """
    if given is None:
        return Item.of(*pack_wheel(platform))
    if not _WHEEL.fullmatch(given.name) or not given.is_file():
        raise DeployError(f"{given}: no wheel of qmdd; its name is qmdd-<version>-….whl")
    return Item.of(given.name, given)


def further_wheels(folder: Path | None) -> list[Item]:
    """The wheels of ``folder``, for a device that reaches no package index.

    Raises:
        DeployError: no such folder, no wheel in it, or far too many.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise DeployError(f"{folder}: no such folder of wheels")
    found = sorted(folder.glob("*.whl"))
    if not 1 <= len(found) <= MAX_WHEELS:
        raise DeployError(
            f"{folder}: holds {len(found)} wheels; `pip download -d FOLDER` fills one for a device"
        )
    return [Item.of(path.name, path) for path in found]
