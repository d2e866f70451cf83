"""The native library as it is built: with sanitizers, without a compiler, and found or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qmdd.runtime import native
from qmdd.runtime.errors import SessionError

ROOT = Path(__file__).parents[2]
CMAKE = shutil.which("cmake") or shutil.which("cmake", path=Path(sys.executable).parent)
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(
    not (CMAKE and COMPILER), reason="needs CMake and a C++ compiler"
)


@needs_compiler
def test_it_is_built_where_a_compiler_is() -> None:
    path = native.require_library()
    assert path == ROOT / "runtime" / "native" / native.LIBRARY
    assert native.kernels()[-1] == "scalar"
    assert native.why_absent() == ""


@needs_compiler
def test_every_kernel_equals_the_definition_under_sanitizers(tmp_path: Path) -> None:
    """Addresses and undefined behaviour are watched while convolutions are drawn at random."""
    source = ROOT / "runtime" / "native"
    for arguments in (
        ["-S", str(source), "-B", str(tmp_path), "-DQMDD_SANITIZE=ON", "-DQMDD_CHECK=ON"],
        ["--build", str(tmp_path), "--target", "native_check"],
    ):
        subprocess.run([str(CMAKE), *arguments], check=True, capture_output=True)
    done = subprocess.run(
        [str(tmp_path / "native_check"), "150", "11"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("150 convolutions, ")
    assert done.stderr == ""


def _build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "setup.py", "--quiet", "build_ext",
            "--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp"),
        ],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(CMAKE is None, reason="needs CMake")
def test_without_a_compiler_it_is_left_out_and_nothing_fails(tmp_path: Path) -> None:
    done = _build(tmp_path, CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stderr
    assert "qmdd lacks its native operators" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_without_cmake_too(tmp_path: Path) -> None:
    """Neither on PATH nor beside this Python: the package is then left without the library."""
    code = (
        "import sys, pathlib, runpy, shutil; shutil.which = lambda *a, **k: None\n"
        "sys.argv[0] = 'setup.py'; runpy.run_path('setup.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--quiet", "build_ext", "--build-lib", str(tmp_path / "lib"),
         "--build-temp", str(tmp_path / "temp")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no cmake here" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_an_absent_library_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LIBRARY", "absent.so")
    assert native.library_path() is None
    with pytest.raises(SessionError, match="not built in this installation; install qmdd from"):
        native.require_library()
    assert "C++ compiler" in native.why_absent()


def test_a_library_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / native.LIBRARY
    broken.write_bytes(b"no library")
    monkeypatch.setattr(native, "library_path", lambda: broken)
    native._loaded.cache_clear()
    try:
        with pytest.raises(SessionError, match=r"cannot be loaded: .*; install qmdd again"):
            native.kernels()
    finally:
        native._loaded.cache_clear()


@pytest.mark.skipif(native.library_path() is None, reason=native.why_absent())
def test_kernels_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.chosen_kernels() == native.kernels()[0]
    monkeypatch.setenv(native.KERNELS_VARIABLE, "scalar")
    assert native.chosen_kernels() == "scalar"
    monkeypatch.setenv(native.KERNELS_VARIABLE, "sse9")
    with pytest.raises(SessionError, match=r"QMDD_KERNELS=sse9: this processor runs .*scalar"):
        native.chosen_kernels()
    assert native.peak("scalar", 1000) == 1000
    with pytest.raises(SessionError, match="cannot run the kernels 'sse9'"):
        native.peak("sse9", 1)
