"""qmdd's own wheel for a device, packed from the qmdd that is running.

The same version runs on both sides, with no index and no source tree needed. It has all of qmdd's
modules, no checkpoints and no sample images; the native operators' library goes along if it was
built for such a machine. The same qmdd gives the same bytes, so that a device's environment is made
once.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .. import native
from ..errors import DeployError

ROOMS = ("models", "calibration", "exporter", "runtime", "cli")
#: Modules and what they read as text; checkpoints and pictures stay here.
_SUFFIXES = (".py", ".typed", ".toml", ".md", ".html", ".css", ".js", ".svg")
#: The oldest date that a zip can hold; the same bytes whenever it is packed.
_DATE = (1980, 1, 1, 0, 0, 0)
_PACKAGE = (__package__ or "qmdd.runtime.deploy").split(".", maxsplit=1)[0]


def wheel_name(version: str, platform: str | None) -> str:
    """The wheel's file name; ``platform`` is that of its native library, if it has one."""
    return f"qmdd-{version}-py3-none-{platform or 'any'}.whl"


def pack_wheel(platform: str | None = None) -> tuple[str, bytes]:
    """The wheel's file name and bytes.

    Args:
        platform: such as ``linux_x86_64``: with the native operators' library, which was built
            here; ``None``: without, for any machine.

    Raises:
        DeployError: qmdd is not installed here, or a part of it is missing.
    """
    try:
        known = metadata.distribution("qmdd")
    except metadata.PackageNotFoundError as error:
        raise DeployError(
            "qmdd is not installed here, so its wheel cannot be packed; install it, or give a "
            "wheel with --wheel"
        ) from error
    about = f"qmdd-{known.version}.dist-info"
    files = dict(_modules())
    library = native.library_path()
    if platform is not None and library is not None:
        files[f"{_PACKAGE}/runtime/native/{library.name}"] = library.read_bytes()
    tag = f"py3-none-{platform or 'any'}"
    # An editable installation may have its metadata under the older name.
    fields = known.read_text("METADATA") or known.read_text("PKG-INFO") or ""
    files[f"{about}/METADATA"] = _head(fields).encode()
    files[f"{about}/entry_points.txt"] = (known.read_text("entry_points.txt") or "").encode()
    pure = "false" if platform else "true"
    files[f"{about}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: qmdd\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    ).encode()
    files[f"{about}/RECORD"] = _record(files, f"{about}/RECORD")
    return wheel_name(known.version, platform), _zipped(files)


def _modules() -> Iterator[tuple[str, bytes]]:
    for room in ROOMS:
        # Found, not imported: some rooms import torch.
        spec = find_spec(f"{_PACKAGE}.{room}")
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not folders:
            raise DeployError(f"this installation lacks {_PACKAGE}.{room}; install qmdd again")
        top = Path(folders[0])
        for path in sorted(top.rglob("*")):
            if path.suffix in _SUFFIXES and "__pycache__" not in path.parts and path.is_file():
                yield f"{_PACKAGE}/{room}/{path.relative_to(top).as_posix()}", path.read_bytes()


def _head(text: str) -> str:
    """The metadata's fields, without the README behind them."""
    return text.partition("\n\n")[0] + "\n"


def _record(files: dict[str, bytes], own: str) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((own, "", ""))
    return out.getvalue().encode()


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()
