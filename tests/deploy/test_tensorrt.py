"""A device with TensorRT and a GPU, both stand-ins: the engine is built there, and verified there.

What it shows: steps, files and refusals are right. Not that TensorRT agrees.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qmdd.runtime import Bundle
from qmdd.runtime.engine import engine_folder

from .deployer import Deployer, current
from .device import Device, base_python

if TYPE_CHECKING:
    from qmdd.models import Detector

STANDIN = Path(__file__).parents[1] / "standin"


@pytest.fixture(scope="module")
def for_tensorrt(
    tmp_path_factory: pytest.TempPathFactory, tiny_detector: Callable[..., Detector]
) -> Path:
    """A narrow detector's bundle for a workstation's TensorRT."""
    from qmdd.exporter.export import export_bundle
    from qmdd.exporter.source import Source

    folder = tmp_path_factory.mktemp("tensorrt") / "bundle"
    source = Source(tiny_detector(), "resnet23", 2, {"sha256": "0" * 64})
    export_bundle(source, folder, target="tensorrt", verify=False)
    return folder


def equip(device: Device, libraries: str, version: str = "10.3.0") -> None:
    """Give the device's Python and its environments the stand-ins."""
    system = device.folder / "system"
    if not system.exists():
        make = (base_python(), "-m", "venv", "--without-pip", str(system))
        subprocess.run(make, check=True, capture_output=True)
        site = next(system.glob("lib/python*/site-packages"))
        (site / "device.pth").write_text(
            f"{STANDIN}\n{sysconfig.get_paths()['purelib']}\n", encoding="utf-8"
        )
    device.program("nvidia-smi", "echo 'Stand-in, 8.7, 8000'")
    device.program(
        "python3",
        f"export LD_LIBRARY_PATH={shlex.quote(libraries)} STANDIN_TENSORRT={version}\n"
        f'case " $* " in *" -m venv "*) {shlex.quote(base_python())} "$@" || exit\n'
        "for env; do :; done\n"
        f'exec cp -r {shlex.quote(str(STANDIN / "tensorrt"))} "$env"/lib/python*/site-packages/;;\n'
        f'esac\nexec {shlex.quote(str(system / "bin" / "python3"))} "$@"',
    )


def test_the_engine_is_built_and_verified_there(
    deployer: Deployer, for_tensorrt: Path, tensorrt_device: dict[str, str]
) -> None:
    libraries = tensorrt_device["LD_LIBRARY_PATH"].split(":")[0]
    shutil.rmtree(deployer.bundle)
    shutil.copytree(for_tensorrt, deployer.bundle)
    device = deployer.device(ready=False)

    refused = deployer.outcome("device-a")
    assert refused["step"] == "look"
    assert "GPU: none that CUDA finds" in refused["error"]
    assert not (device.home / "qmdd").exists()

    equip(device, libraries, "9.1.0")
    refused = deployer.outcome("device-a")
    assert "TensorRT: 9.1.0 here, tensorrt is for 10.0 to 11.4" in refused["error"]

    equip(device, libraries)
    found = deployer.outcome("device-a")
    assert found["state"] == "deployed", found
    assert list(found["seconds"]) == [
        *("connect", "look", "copy", "environment", "release", "build", "verify", "switch")
    ]
    tiers = {tier["tier"]: tier for tier in found["verify"]["parity"]}
    assert list(tiers) == ["strict", "engine", "codes"]
    assert tiers["codes"]["codes_compared"] > 100_000
    assert (found["engine"]["backend"], found["engine"]["version"]) == ("tensorrt", "10.3.0")
    # The engine is the device's; the bundle here stays without one.
    assert engine_folder(Bundle.open(deployer.bundle)) is None
    assert engine_folder(Bundle.open(device.home / "qmdd" / "current" / "bundle")) is not None

    # The device gets another TensorRT: the same deployment builds anew.
    equip(device, libraries, "10.7.0")
    newer = deployer.outcome("device-a")
    assert newer["state"] == "deployed", newer
    assert newer["engine"]["version"] == "10.7.0"
    assert newer["files"] == 0
    assert current(device) == newer["release"] != found["release"]

    # A bundle that brings another TensorRT's engine along: said, and built anew.
    shutil.rmtree(deployer.bundle)
    shutil.copytree(
        device.home / "qmdd" / "releases" / found["release"] / "bundle", deployer.bundle
    )
    assert engine_folder(Bundle.open(deployer.bundle)) is not None
    third = deployer.outcome("device-a", options=("--side", "64:256:256"))
    assert third["state"] == "deployed", third
    assert third["engine"]["version"] == "10.7.0"
    assert "--side" in next(line for line in third["commands"] if "build" in line)
    assert "the bundle's engine is not used: built for tensorrt 10.3.0" in third["warnings"][0]
    assert json.loads(
        (device.home / "qmdd" / "current" / "report.json").read_text(encoding="utf-8")
    )["verify"]["passed"]
