"""Wheels of what is installed here, so that a device's pip needs no network."""

from __future__ import annotations

import zipfile
from importlib.metadata import distribution
from pathlib import Path

#: What qmdd and its extra ``runtime`` ask for, and what these ask for.
PACKAGES = (
    *("numpy", "onnxruntime", "pillow", "safetensors", "click", "rich", "flatbuffers"),
    *("protobuf", "packaging", "markdown-it-py", "mdurl", "pygments"),
)


def write_wheels(folder: Path) -> None:
    """Pack each of :data:`PACKAGES`, uncompressed, into ``folder``."""
    for package in PACKAGES:
        found = distribution(package)
        about = found.read_text("WHEEL") or ""
        tags = [line[5:] for line in about.splitlines() if line.startswith("Tag: ")]
        tag = next(tag for tag in tags if not tag.startswith("py2"))
        name = found.metadata["Name"].replace("-", "_")
        files = [file for file in found.files or () if _belongs(str(file))]
        with zipfile.ZipFile(folder / f"{name}-{found.version}-{tag}.whl", "w") as archive:
            for file in files:
                archive.write(Path(str(found.locate_file(file))), str(file))
            record = next(str(file) for file in files if str(file).endswith(".dist-info/METADATA"))
            rows = "".join(f"{file},,\n" for file in files)
            archive.writestr(record.replace("METADATA", "RECORD"), rows)


def _belongs(name: str) -> bool:
    """Not what pip itself has added: scripts, compiled modules, its notes."""
    left_out = (".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")
    return not name.startswith("..") and not name.endswith(left_out)
