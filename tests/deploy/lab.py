"""Devices to deploy to: real OpenSSH servers on loopback, each with a home and a line of its own.

Nothing of this machine's own SSH is read or changed: keys, known hosts and both configurations lie
in the test's folder. What a client runs on a device runs through a shell with the device's HOME.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .device import Device, make_key, user_name

_CLIENT = """\
Host {name}
  HostName 127.0.0.1
  HostKeyAlias {name}
  Port {port}
  User {user}
  IdentityFile {root}/client_key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {root}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes

"""


class Lab:
    """Devices and one SSH configuration for all: ``ssh -F lab.config device-a``."""

    def __init__(self, root: Path, sshd: str) -> None:
        self.root = root
        self.config = root / "ssh_config"
        self.config.touch()
        self._sshd = sshd
        self._devices: dict[str, Device] = {}
        make_key(root / "client_key")

    def device(self, name: str = "device-a") -> Device:
        """The device of this name; started when it is first asked for."""
        if name not in self._devices:
            device = Device(self.root, name, self._sshd)
            device.trust()
            self._devices[name] = device
            values = {
                "name": name,
                "port": device.line.port,
                "user": user_name(),
                "root": self.root,
            }
            with self.config.open("a", encoding="utf-8") as file:
                file.write(_CLIENT.format(**values))
        return self._devices[name]

    def ssh(
        self, name: str, command: str, data: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``command`` on a device by the system's own client."""
        line = ("ssh", "-F", str(self.config), "-o", "BatchMode=yes", name, command)
        return subprocess.run(line, input=data, capture_output=True, timeout=timeout, check=False)

    def close(self) -> None:
        """Stop all devices."""
        for device in self._devices.values():
            device.close()


def find_sshd() -> str | None:
    """Where this machine's OpenSSH server is, which is not always in PATH."""
    places = (os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin")
    return shutil.which("sshd", path=os.pathsep.join(places))
