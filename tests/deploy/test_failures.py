"""Whatever breaks a deployment, what ran before runs on, and the next one goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from qmdd.runtime import Bundle
from qmdd.runtime.bundle import MANIFEST, manifest_bytes
from qmdd.runtime.golden import Golden, read_golden, write_golden

from .deployer import Deployer, current
from .device import Device

#: Bytes that a connection takes before anything of the bundle goes over it: keys, agent, probe.
BEFORE_COPY = 70_000


@pytest.fixture
def deployed(deployer: Deployer) -> tuple[Device, str]:
    """A device that runs a release; the bundle is another one by now, with a large new file."""
    device = deployer.device()
    first = deployer.outcome("device-a")
    assert first["state"] == "deployed", first["stderr"]
    manifest = json.loads((deployer.bundle / MANIFEST).read_text(encoding="utf-8"))
    data = os.urandom(1 << 20)
    (deployer.bundle / "extra.bin").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    manifest["files"]["extra.bin"] = {"sha256": digest, "bytes": len(data)}
    (deployer.bundle / MANIFEST).write_bytes(manifest_bytes(manifest))
    return device, first["release"]


def runs(device: Device, release: str) -> bool:
    """Whether the device runs ``release``, whole."""
    Bundle.open(device.home / "qmdd" / "current" / "bundle")
    return current(device) == release


def _line(stderr: str) -> str:
    """The one line of an error."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    return lines[0]


def test_a_cut_connection_is_gone_on_with(deployer: Deployer, deployed: tuple[Device, str]) -> None:
    device, release = deployed
    device.line.cut_after(BEFORE_COPY + (1 << 19))
    done = deployer("device-a")
    assert done.returncode == 1
    assert "qmdd: error: device-a: copy: the connection broke" in _line(done.stderr)
    assert "(what ran there runs on)" in done.stderr
    assert runs(device, release)
    device.line.mend()
    before = device.line.to_server
    found = deployer.outcome("device-a")
    assert found["state"] == "deployed", found["stderr"]
    # At least one whole chunk of the large file had arrived, and was not sent again.
    assert (1 << 20) + (deployer.bundle / MANIFEST).stat().st_size - found["copied"] >= (1 << 18)
    assert device.line.to_server - before < BEFORE_COPY + (1 << 20) - (1 << 18) + 50_000
    assert runs(device, found["release"])


def test_a_dead_connection_ends_on_both_sides(
    deployer: Deployer, deployed: tuple[Device, str]
) -> None:
    device, release = deployed
    device.line.stall_after(BEFORE_COPY + (1 << 19))
    done = deployer("device-a")
    assert done.returncode == 1
    assert "copy: the connection broke" in _line(done.stderr)
    assert runs(device, release)
    device.line.mend()
    # The agent there saw its connection end, and gave the lock back.
    _wait(lambda: not _agents(device))
    assert deployer.outcome("device-a")["state"] == "deployed"


def test_an_interruption_leaves_no_process_there(
    deployer: Deployer, deployed: tuple[Device, str]
) -> None:
    """SIGKILL here, while a program of ours runs there; then SIGINT."""
    device, release = deployed
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = subprocess.Popen(
            deployer.command("device-a"),
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        _wait(lambda: any("verify" in line for line in device.processes().values()))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == code
        assert ("run what they ran before" in said) == (number == signal.SIGINT)
        _wait(lambda: not device.processes())
        assert runs(device, release)
    assert deployer.outcome("device-a")["state"] == "deployed"
    # What the broken ones left is gone.
    assert len(os.listdir(device.home / "qmdd" / "releases")) == 2


def test_a_wrong_host_key_is_refused(deployer: Deployer, deployed: tuple[Device, str]) -> None:
    device, release = deployed
    device.new_host_key()
    done = deployer("device-a")
    assert done.returncode == 1
    assert "connect: its host key is not the one that is known" in _line(done.stderr)
    assert runs(device, release)


def test_an_unreachable_host(deployer: Deployer) -> None:
    device = deployer.device(ready=False)
    device.line.refuse()
    done = deployer("device-a")
    assert done.returncode == 1
    assert "connect: nothing answers at its ssh port" in _line(done.stderr)


def test_a_host_without_python(deployer: Deployer) -> None:
    device = deployer.device(ready=False)
    device.without("python")
    done = deployer("device-a")
    assert done.returncode == 1
    assert "connect: has no such Python" in _line(done.stderr)
    assert not (device.home / "qmdd").exists()


def test_a_python_that_is_too_old_even_for_the_agent(deployer: Deployer) -> None:
    device = deployer.device(ready=False)
    device.old_python("3.6.9")
    done = deployer("device-a")
    assert done.returncode == 1
    assert "connect: its python3 is Python 3.6, too old" in _line(done.stderr)


def test_a_full_disk(deployer: Deployer, deployed: tuple[Device, str]) -> None:
    """Too little space is seen beforehand; space that runs out on the way is named."""
    device, _ = deployed
    small = device.home / "small"
    why = device.mount(small, "size=512k")
    if why is not None:
        pytest.skip(f"no small file system to fill: {why}")
    done = deployer("device-a:small/qmdd")
    assert done.returncode == 1
    assert "MiB are needed (most of it for the environment), 0 MiB are free" in _line(done.stderr)
    few = device.home / "few"
    assert device.mount(few, "size=800m,nr_inodes=9") is None
    done = deployer("device-a:few/qmdd")
    assert done.returncode == 1
    assert "copy: " in _line(done.stderr)
    assert "No space left on device; free some space there" in done.stderr
    assert not (few / "qmdd" / "current").exists()


def test_a_folder_that_cannot_be_written(deployer: Deployer, deployed: tuple[Device, str]) -> None:
    device, release = deployed
    why = device.mount(device.home / "fixed", "size=1m")
    if why is not None:
        pytest.skip(f"no file system to make read-only: {why}")
    device.read_only(device.home / "fixed")
    done = deployer("device-a:fixed/qmdd")
    assert done.returncode == 1
    assert "fixed/qmdd: Read-only file system" in _line(done.stderr)
    assert runs(device, release)


def test_a_folder_of_somebody_elses(deployer: Deployer) -> None:
    device = deployer.device(ready=False)
    (device.home / "photos").mkdir()
    (device.home / "photos" / "a.jpg").touch()
    done = deployer("device-a:photos")
    assert done.returncode == 1
    assert "photos holds other files (there is no .qmdd in it)" in _line(done.stderr)
    assert os.listdir(device.home / "photos") == ["a.jpg"]


def test_a_model_that_computes_something_else_is_not_switched_to(
    deployer: Deployer, deployed: tuple[Device, str]
) -> None:
    """Golden results that the model does not meet, hashes right: the device says so."""
    device, release = deployed
    golden = deployer.bundle / "parity" / "golden.safetensors"
    found = read_golden(golden)
    layer = found.layers[3]
    codes = [dict(held.items()) for held in found.codes]  # each unpacked
    codes[1][layer][7] ^= 1
    write_golden(golden, Golden(found.images, found.logits, codes))
    manifest = json.loads((deployer.bundle / MANIFEST).read_text(encoding="utf-8"))
    data = golden.read_bytes()
    manifest["files"]["parity/golden.safetensors"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    (deployer.bundle / MANIFEST).write_bytes(manifest_bytes(manifest))
    result = deployer.outcome("device-a")
    assert (result["code"], result["step"]) == (1, "verify")
    assert "does not compute what was trained: strict: 1 of " in result["error"]
    wrong = [
        each["layer"]
        for tier in result["verify"]["parity"]
        for each in tier["layers"]
        if each["wrong"]
    ]
    assert wrong == [layer, layer]
    assert runs(device, release)
    assert os.listdir(device.home / "qmdd" / "releases") == [release]


def test_two_deployments_to_one_device_at_once(
    deployer: Deployer, deployed: tuple[Device, str]
) -> None:
    device, _ = deployed
    device.line.slow(300_000)
    first = subprocess.Popen(
        deployer.command("device-a"), stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    _wait(lambda: bool(list((device.home / "qmdd" / "objects").glob("*.part"))))
    second = deployer("device-a")
    assert second.returncode == 1
    assert "copy: " in _line(second.stderr)
    assert "another deployment is at work there (process " in second.stderr
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said


def test_greetings_and_other_shells(deployer: Deployer, deployed: tuple[Device, str]) -> None:
    device, _ = deployed
    device.login(before="echo 'Welcome!'; echo noise >&2; printf 'no end of line'")
    assert deployer.outcome("device-a")["state"] == "deployed"


def _agents(device: Device) -> list[str]:
    return [line for line in device.processes().values() if "qmdd-agent" in line]


def _wait(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)
