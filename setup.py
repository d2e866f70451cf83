"""What pyproject.toml cannot say: how the native operators are built.

They are a library that ONNX Runtime loads, no module of Python, so CMake builds them
(runtime/native/CMakeLists.txt). They are optional: without CMake or a C++ compiler, qmdd is
installed without them, and runs CPUs by its portable models. With QMDD_NATIVE=0 in the environment
they are not tried, and the wheel is for any platform.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCE = Path("runtime/native")
LIBRARY = "qmdd_native"


class BuildNative(build_ext):
    """Runs CMake; whatever fails is a warning of one line, since the extension is optional."""

    def build_extension(self, ext: Extension) -> None:
        cmake = shutil.which("cmake") or shutil.which("cmake", path=Path(sys.executable).parent)
        if cmake is None:
            raise CompileError("no cmake here; qmdd is installed without its native operators")
        folder = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve() / LIBRARY
        configure = ["-S", str(SOURCE), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
        # A folder that was configured elsewhere (another checkout, another compiler) is begun anew.
        shutil.rmtree(build, ignore_errors=True)
        for arguments in (configure, ["--build", str(build), "--parallel"]):
            done = subprocess.run([cmake, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr or done.stdout).strip()
                raise CompileError(f"cmake failed; qmdd lacks its native operators\n{said}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build / f"{LIBRARY}.so", folder / f"{LIBRARY}.so")

    def get_ext_filename(self, fullname: str) -> str:
        """No suffix of a Python version: the library knows none."""
        return str(Path(*fullname.split("."))) + ".so"


class PlatformWheel(bdist_wheel):
    """A wheel with the library is for one platform, and for every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", "any" if self.root_is_pure else super().get_tag()[2])


wanted = os.environ.get("QMDD_NATIVE") != "0"
setup(
    ext_modules=[Extension(f"qmdd.runtime.native.{LIBRARY}", [], optional=True)] if wanted else [],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel},
)
