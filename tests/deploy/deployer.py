"""``qmdd deploy`` and ``qmdd rollback`` as processes, against the devices of a lab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .device import Device
from .lab import Lab

_MAIN = "from qmdd.cli.main import main; main()"


class Deployer:
    """Runs the commands; ``bundle`` is what is deployed."""

    def __init__(
        self,
        lab: Lab,
        bundle: Path,
        wheels: Path,
        environments: dict[str, Path],
        factory: pytest.TempPathFactory,
    ) -> None:
        self.lab, self.bundle, self.wheels = lab, bundle, wheels
        self._environments, self._factory = environments, factory

    def device(self, name: str = "device-a", *, ready: bool = True) -> Device:
        """A device; ``ready``: it has the environment already, as after an earlier deployment."""
        device = self.lab.device(name)
        if ready and not (device.home / "qmdd").exists():
            kept = self._environment()
            (device.home / "qmdd").mkdir()
            (device.home / "qmdd" / ".qmdd").touch()
            _link_tree(kept, device.home / "qmdd" / "envs")
        return device

    def _environment(self) -> Path:
        """Made once, by a deployment to a device of its own."""
        if "envs" not in self._environments:
            device = self.lab.device("first")
            done = self("first")
            assert done.returncode == 0, done.stderr
            self.keep_environment(device)
        return self._environments["envs"]

    def keep_environment(self, device: Device, folder: str = "qmdd") -> None:
        """Let further devices have the environment that was made on ``device``."""
        if "envs" not in self._environments:
            kept = self._factory.mktemp("envs") / "envs"
            _link_tree(device.home / folder / "envs", kept)
            self._environments["envs"] = kept

    def command(self, *hosts: str, options: tuple[object, ...] = ()) -> list[str]:
        """The command line of a deployment."""
        more = ("--wheels", self.wheels, "--bench-seconds", 0, "--patience", 3)
        line = ("deploy", self.bundle, *hosts, "--ssh-config", self.lab.config, *more, *options)
        return [sys.executable, "-c", _MAIN, *map(str, line)]

    def __call__(
        self, *hosts: str, options: tuple[object, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Deploy, and wait for the end."""
        return subprocess.run(
            self.command(*hosts, options=options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def rollback(self, host: str, *options: object) -> subprocess.CompletedProcess[str]:
        """``qmdd rollback``."""
        line = ("rollback", host, "--ssh-config", self.lab.config, *options)
        return subprocess.run(
            [sys.executable, "-c", _MAIN, *map(str, line)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def outcome(self, *hosts: str, options: tuple[object, ...] = ()) -> dict[str, Any]:
        """The one host's outcome of a deployment, from ``--json``."""
        done = self(*hosts, options=("--json", *options))
        found = json.loads(done.stdout)["hosts"]
        assert len(found) == 1
        return {**found[0], "code": done.returncode, "stderr": done.stderr}


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, copy_function=os.link)


def current(device: Device, folder: str = "qmdd") -> str:
    """The release that a device runs."""
    return os.path.basename(os.readlink(device.home / folder / "current"))
