"""The wheel that devices get: whole, the same every time, installable."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from qmdd.runtime import native
from qmdd.runtime.deploy.payload import further_wheels, runtime_wheel
from qmdd.runtime.deploy.wheel import ROOMS, pack_wheel
from qmdd.runtime.errors import DeployError


def test_it_holds_every_module_and_nothing_large() -> None:
    name, data = pack_wheel()
    assert name == f"qmdd-{metadata.version('qmdd')}-py3-none-any.whl"
    assert len(data) < 1 << 20
    assert pack_wheel() == (name, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
        rows = list(csv.reader(io.StringIO(archive.read(_about(names, "RECORD")).decode())))
        assert {row[0] for row in rows} == names
        for place, digest, size in rows[:-1]:
            content = archive.read(place)
            said = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={said}", str(len(content)))
        fields = archive.read(_about(names, "METADATA")).decode()
    assert "Provides-Extra: runtime" in fields
    assert "\n\n" not in fields
    root = Path(__file__).parents[2]
    for room in ROOMS:
        for module in (root / room).rglob("*.py"):
            assert f"qmdd/{module.relative_to(root).as_posix()}" in names
    assert not [name for name in names if name.endswith((".safetensors", ".so", ".webp", ".cpp"))]


def test_a_native_wheel_says_for_which_platform() -> None:
    if native.library_path() is None:
        pytest.skip("the native operators are not built here; a C++ compiler builds them")
    name, data = pack_wheel("linux_x86_64")
    assert name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
        assert "qmdd/runtime/native/qmdd_native.so" in names
        assert b"Tag: py3-none-linux_x86_64" in archive.read(_about(names, "WHEEL"))


def test_it_runs_where_it_is_unpacked(tmp_path: Path) -> None:
    """Alone: nothing of the source tree is seen."""
    with zipfile.ZipFile(io.BytesIO(pack_wheel()[1])) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        "from qmdd.cli import main; assert main.__file__.startswith(sys.path[0]); main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rollback" in done.stdout


@pytest.mark.parametrize("name", ["qmdd-1.0.tar.gz", "other-1.0-py3-none-any.whl", "qmdd-1-x.whl"])
def test_what_is_given_must_be_a_wheel_of_ours(tmp_path: Path, name: str) -> None:
    if not name.startswith("qmdd-1-"):
        (tmp_path / name).touch()
    with pytest.raises(DeployError, match="no wheel of qmdd"):
        runtime_wheel(tmp_path / name, None)


def test_a_folder_of_wheels(tmp_path: Path) -> None:
    assert further_wheels(None) == []
    with pytest.raises(DeployError, match="holds 0 wheels"):
        further_wheels(tmp_path)
    with pytest.raises(DeployError, match="no such folder"):
        further_wheels(tmp_path / "none")
    (tmp_path / "b.whl").write_bytes(b"b")
    (tmp_path / "a.whl").write_bytes(b"a")
    (tmp_path / "notes.txt").touch()
    found = further_wheels(tmp_path)
    assert [item.name for item in found] == ["a.whl", "b.whl"]
    assert found[0].sha256 == hashlib.sha256(b"a").hexdigest()


def _about(names: set[str], file: str) -> str:
    return next(name for name in names if name.endswith(f".dist-info/{file}"))
