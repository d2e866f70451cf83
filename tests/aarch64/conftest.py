"""An aarch64 device without one: QEMU's user emulation over the files of an arm64 Debian.

Everything is made under build/aarch64, and kept there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from qmdd.exporter.samples import sample_images

from . import debian

SOURCE = Path(__file__).parents[2]
BUILD = SOURCE / "build" / "aarch64"
EMULATOR = "qemu-aarch64-static"
COMPILER = "aarch64-linux-gnu-g++"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_TAGS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


class Emulated:
    """A device: ``root`` its files, ``packages`` the folders of its Python packages."""

    def __init__(self, root: Path, *packages: Path) -> None:
        self.root, self.packages = root, packages

    def program(self, *line: object) -> subprocess.CompletedProcess[str]:
        """Run one aarch64 program. What it would start by itself is not emulated."""
        environment = {
            "HOME": str(BUILD),
            "LANG": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(map(str, self.packages)),
        }
        command = (EMULATOR, "-L", self.root, *line)
        return subprocess.run(
            [str(word) for word in command],
            env=environment, capture_output=True, text=True, timeout=580, check=False,
        )  # fmt: skip

    def python(self, *line: object) -> subprocess.CompletedProcess[str]:
        """Run Debian's Python for aarch64."""
        return self.program(self.root / "usr/bin/python3", *line)

    def qmdd(self, *line: object) -> subprocess.CompletedProcess[str]:
        """Run the command line of the installed wheel."""
        return self.python("-m", "qmdd.cli.main", *line)


@pytest.fixture(scope="session")
def root() -> Path:
    """The files of an arm64 Debian."""
    if shutil.which(EMULATOR) is None:
        pytest.skip(f"{EMULATOR} is missing: apt install qemu-user-static")
    if why := debian.why_not():
        pytest.skip(f"no arm64 Debian: {why}")
    place = BUILD / f"{debian.RELEASE}-root"
    if not place.is_dir():
        debian.make_root(place)
    return place


@pytest.fixture(scope="session")
def device(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    """A device with ONNX Runtime and the wheel of qmdd that is for any platform."""
    pinned = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    libraries = BUILD / f"libraries-{pinned}"
    if not libraries.is_dir():
        platforms = [f"--platform={tag}_aarch64" for tag in _TAGS]
        part = BUILD / f"{libraries.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        _pip(
            "install", "--target", part, "--no-deps", "--require-hashes", "-r", REQUIREMENTS,
            "--only-binary=:all:", "--python-version=3.11", "--implementation=cp",
            "--abi=cp311", "--abi=abi3", "--abi=none", *platforms,
        )  # fmt: skip
        part.rename(libraries)
    wheels = tmp_path_factory.mktemp("wheels")
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", wheels, SOURCE, QMDD_NATIVE="0")
    (wheel,) = wheels.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    ours = tmp_path_factory.mktemp("device")
    _pip("install", "--target", ours, "--no-deps", wheel)
    return Emulated(root, ours, libraries)


@pytest.fixture(scope="session")
def native_build(root: Path) -> Path:
    """Folder of the native operators (and ``native_check``), compiled for aarch64."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is missing: apt install g++-aarch64-linux-gnu")
    cmake = shutil.which("cmake") or Path(sys.executable).with_name("cmake")
    build = BUILD / "native"
    shutil.rmtree(build, ignore_errors=True)
    for arguments in (
        [
            "-S", SOURCE / "runtime/native", "-B", build, "-DQMDD_CHECK=ON",
            "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
            f"-DCMAKE_CXX_COMPILER={COMPILER}",
        ],
        ["--build", build, "--parallel"],
    ):  # fmt: skip
        _run(cmake, *arguments)
    return build


@pytest.fixture(scope="session")
def native_device(
    device: Emulated, native_build: Path, tmp_path_factory: pytest.TempPathFactory
) -> Emulated:
    """:func:`device` with the native operators too."""
    ours, libraries = device.packages
    both = tmp_path_factory.mktemp("native-device") / "packages"
    shutil.copytree(ours, both)
    shutil.copyfile(
        native_build / "qmdd_native.so", both / "qmdd/runtime/native" / "qmdd_native.so"
    )
    return Emulated(device.root, both, libraries)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sample images, cut to 64x64 and 32x48: what is emulated takes its time."""
    folder = tmp_path_factory.mktemp("images")
    for path, (width, height) in zip(sample_images()[::4], ((64, 64), (32, 48)), strict=True):
        with Image.open(path) as image:
            cut = image.convert("RGB").crop((64, 64, 64 + width, 64 + height))
            cut.save(folder / f"{path.stem}.png")
    return folder


@pytest.fixture(scope="session")
def bundles(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``bundles(target)``: the built-in 2-bit checkpoint, exported on this machine."""
    folder = tmp_path_factory.mktemp("bundles")

    def bundle(target: str) -> Path:
        place = folder / target
        if not place.exists():
            _run(
                sys.executable, "-m", "qmdd.cli.main", "export", "--bits", 2, "--target", target,
                "--images", images, "-o", place,
            )  # fmt: skip
        return place

    return bundle


def _pip(command: str, *line: object, **environment: str) -> None:
    pip = (sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check")
    _run(*pip, *line, **environment)


def _run(*line: object, **environment: str) -> None:
    command = [str(word) for word in line]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
