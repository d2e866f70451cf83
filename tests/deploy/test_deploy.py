"""Deployments to real OpenSSH servers: fresh, repeated, changed, several at once, and back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from qmdd.runtime import Bundle
from qmdd.runtime.bundle import MANIFEST, manifest_bytes
from qmdd.runtime.deploy.hosts import Host
from qmdd.runtime.deploy.outcome import report_path, without_homes

from .deployer import Deployer, current

AWKWARD = "a b; touch pwned $(touch pwned) `touch pwned` 'q' \"d\" \\ * -x"


def _changed(bundle: Path) -> None:
    """Let the bundle be another one: its manifest says something new, its files are as before."""
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    manifest["note"] = str(manifest.get("note", "")) + "changed "
    (bundle / MANIFEST).write_bytes(manifest_bytes(manifest))


def test_a_fresh_device_is_made_ready_verified_and_measured(deployer: Deployer) -> None:
    """Whole: environment by pip, golden results, bench, report, and the command that is left.

    In a folder whose name a shell, or pip, could take for something else.
    """
    device = deployer.device(ready=False)
    done = deployer(f"device-a:{AWKWARD}", options=("--bench-seconds", 0.2, "--json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["hosts"][0]
    assert (found["state"], found["previous"]) == ("deployed", None)
    steps = ["connect", "look", "copy", "environment", "release", "verify", "bench", "switch"]
    assert list(found["seconds"]) == steps
    tiers = found["verify"]["parity"]
    assert [tier["tier"] for tier in tiers] == ["strict", "deployed"]
    assert all(tier["codes_compared"] > 100_000 and not tier["wrong_codes"] for tier in tiers)
    assert found["bench"]["configurations"][0]["rows"][0]["times"]["median_ms"] > 0
    root = device.home / AWKWARD
    deployer.keep_environment(device, AWKWARD)
    report = json.loads(report_path(deployer.bundle, Host("device-a", AWKWARD)).read_text())
    assert {**report, "time": None} == without_homes({**found, "time": None})
    assert json.loads((root / "current" / "report.json").read_text())["release"] == current(
        device, AWKWARD
    )
    # What is left runs by itself, from anywhere, and the bundle there is the one that was sent.
    command = [root / "current" / "env" / "bin" / "qmdd", "verify", "--golden", "--tier", "strict"]
    again = subprocess.run([*command, root / "current" / "bundle"], cwd="/", check=False)
    assert again.returncode == 0
    theirs = Bundle.open(root / "current" / "bundle").manifest
    assert theirs == Bundle.open(deployer.bundle).manifest
    assert not (root / "current" / "bundle" / "devices").exists()
    # One constant line is all that the device's shell ever got.
    assert len(device.commands()) == 1
    assert device.commands()[0].startswith("exec python3 -I -c ")
    scripts = {path.name for path in (root / "current" / "env" / "bin").iterdir()}
    assert {name for name in scripts if not name.startswith("python")} == {"qmdd"}
    assert not list(device.folder.rglob("pwned"))


def test_only_what_changed_is_copied(deployer: Deployer) -> None:
    device = deployer.device()
    first = deployer.outcome("device-a")
    assert first["code"] == 0, first["stderr"]
    files = Bundle.open(deployer.bundle).manifest["files"]
    assert first["files"] == len(files) + 1
    # The same again: nothing is copied, nothing is switched, it is verified all the same.
    before = device.line.to_server
    same = deployer.outcome("device-a")
    assert (same["state"], same["files"], same["copied"]) == ("already deployed", 0, 0)
    assert same["release"] == first["release"] == current(device)
    assert same["verify"]["passed"]
    assert device.line.to_server - before < min(entry["bytes"] for entry in files.values()) + 99_999
    # One file changed: one is copied.
    _changed(deployer.bundle)
    changed = deployer.outcome("device-a")
    assert (changed["state"], changed["files"]) == ("deployed", 1)
    assert changed["copied"] == (deployer.bundle / MANIFEST).stat().st_size
    assert changed["previous"] == first["release"]
    assert current(device) == changed["release"]


def test_rollback_goes_back_one_release_at_a_time_and_old_ones_go(deployer: Deployer) -> None:
    device = deployer.device()
    releases = []
    for _ in range(4):
        releases.append(deployer.outcome("device-a")["release"])
        _changed(deployer.bundle)
    # The current one and two before it are kept; their files are links to the same ones.
    assert sorted(os.listdir(device.home / "qmdd" / "releases")) == sorted(releases[1:])
    listed = json.loads(deployer.rollback("device-a", "--list", "--json").stdout)
    assert listed["current"] == releases[3]
    assert [listed["releases"][name]["previous"] for name in releases[2:]] == releases[1:3]
    for expected in (releases[2], releases[1]):
        done = deployer.rollback("device-a")
        assert done.returncode == 0, done.stderr
        assert current(device) == expected
    assert f"runs {releases[1]} again, instead of {releases[2]}" in done.stdout
    done = deployer.rollback("device-a")
    assert done.returncode == 1
    assert "has no release" in done.stderr
    assert deployer.rollback("device-a", "--to", releases[3]).returncode == 0
    assert current(device) == releases[3]


def test_a_damaged_release_is_not_returned_to_and_is_mended_by_deploying(
    deployer: Deployer,
) -> None:
    device = deployer.device()
    first = deployer.outcome("device-a")["release"]
    _changed(deployer.bundle)
    second = deployer.outcome("device-a")["release"]
    model = device.home / "qmdd" / "releases" / first / "bundle" / "model.onnx"
    data = bytearray(model.read_bytes())
    data[1000] ^= 1
    model.write_bytes(data)  # a link: the current release's file is the same
    done = deployer.rollback("device-a")
    assert done.returncode == 1
    assert f"release {first} is damaged (model.onnx is missing or changed)" in done.stderr
    assert current(device) == second
    mended = deployer.outcome("device-a")
    assert (mended["state"], mended["files"]) == ("deployed", 1)
    assert mended["release"] not in (first, second)
    Bundle.open(device.home / "qmdd" / "current" / "bundle")


def test_two_devices_at_once_one_failing(deployer: Deployer) -> None:
    good, bad = deployer.device("device-a"), deployer.device("device-b")
    bad.old_python("3.9.2")
    hosts = deployer.lab.root / "hosts.txt"
    hosts.write_text("# ours\ndevice-a\n\ndevice-b  # the old one\n", encoding="utf-8")
    done = deployer(options=("--hosts", hosts, "--json"))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["passed"] is False
    one, two = found["hosts"]
    assert (one["host"]["destination"], one["state"]) == ("device-a", "deployed")
    assert (two["host"]["destination"], two["state"], two["step"]) == ("device-b", "failed", "look")
    assert "Python: 3.9.2, qmdd needs 3.10" in two["error"]
    assert current(good) == one["release"]
    assert (deployer.bundle / "devices" / "device-a.json").is_file()
    assert not (deployer.bundle / "devices" / "device-b.json").exists()


def test_awkward_names_are_names_and_nothing_else(deployer: Deployer, tmp_path: Path) -> None:
    """A folder on the device, the bundle's own folder, the wheels' and the list's."""
    device = deployer.device()
    for folder in (AWKWARD, f"-rf {AWKWARD}"):
        (device.home / folder).mkdir()
        os.rename(device.home / "qmdd" / "envs", device.home / folder / "envs")
        (device.home / folder / ".qmdd").touch()
        here = tmp_path / f"here {AWKWARD}{len(folder)}"
        deployer.bundle = deployer.bundle.rename(here)
        found = deployer.outcome(f"device-a:{folder}")
        assert found["code"] == 0, found
        assert (device.home / folder / "current" / "bundle" / MANIFEST).is_file()
        command = device.home / folder / "current" / "env" / "bin" / "qmdd"
        assert subprocess.run([command, "--version"], cwd=tmp_path, check=False).returncode == 0
        done = deployer.rollback(f"device-a:{folder}", "--list")
        assert done.returncode == 0, done.stderr
        os.rename(device.home / folder / "envs", device.home / "qmdd" / "envs")
    assert not list(tmp_path.rglob("pwned"))
    assert not list(device.folder.rglob("pwned"))
    assert not Path("pwned").exists()
    assert {command.split(" -I ")[0] for command in device.commands()} == {"exec python3"}


@pytest.mark.parametrize("name", ["-oProxyCommand=touch pwned", "a b", "a;b", "$(id)", "'", "a\nb"])
def test_awkward_hosts_never_reach_ssh(deployer: Deployer, name: str) -> None:
    done = deployer("--", name)
    assert done.returncode == 2
    assert "a host's or user's name has letters" in done.stderr
    assert "Traceback" not in done.stderr
