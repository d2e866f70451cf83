"""Devices to deploy to, as they are named on the command line and in a list of hosts."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import DeployError

#: Folder on a device, in its user's home unless it begins with ``/``.
FOLDER = "qmdd"
#: A longer list is refused unread.
MAX_BYTES = 1 << 20
#: ssh hands a name on to a shell where the user's configuration has a ProxyCommand or a Match exec
#: with %h or %r: what a shell would take for its own never gets that far.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*")
_ADDRESS = re.compile(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\]")
_URL = re.compile(r"(?P<name>[^/]*?)(:(?P<port>\d{1,5}))?(?P<folder>/.*)?", re.DOTALL)
_PLAIN = re.compile(r"(?P<name>([^:\[]*@)?(\[[^\]]*\]|[^:]*))(:(?P<folder>.*))?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Host:
    """A device.

    Attributes:
        destination: what ssh is given: ``user@name``, or a name of the user's ssh configuration.
        folder: where it goes on the device; in the home of its user unless it begins with ``/``.
        port: of its ssh server; ``None``: as ssh's configuration says.
    """

    destination: str
    folder: str = FOLDER
    port: int | None = None

    @property
    def label(self) -> str:
        """By which the device is named to people."""
        port = f":{self.port}" if self.port else ""
        return self.destination + port + (f":{self.folder}" if self.folder != FOLDER else "")

    @classmethod
    def parse(cls, text: str) -> Host:
        """From ``[user@]host[:folder]`` or ``ssh://[user@]host[:port][/folder]``.

        Raises:
            DeployError: neither of them, or a name that ssh or a shell could misunderstand.
        """
        url = text.startswith("ssh://")
        found = _URL.fullmatch(text[6:]) if url else _PLAIN.fullmatch(text)
        if found is None:
            raise DeployError(f"{text!r} is no host; give user@host, user@host:folder or ssh://…")
        user, at, name = found["name"].rpartition("@")
        if not (_NAME.fullmatch(name) or _ADDRESS.fullmatch(name)) or (
            at and not _NAME.fullmatch(user)
        ):
            raise DeployError(
                f"{text!r}: a host's or user's name has letters, digits and . _ - + only, and "
                "does not begin with a dash; give others a name in ssh's configuration"
            )
        folder = found["folder"] or FOLDER
        if "\0" in folder:
            raise DeployError(f"{text!r}: a folder's name cannot hold a NUL byte")
        port = int(found["port"]) if url and found["port"] else None
        if port is not None and not 1 <= port <= 65535:
            raise DeployError(f"{text!r}: {port} is no port; there are 1 to 65535")
        # ssh takes addresses without the brackets that keep their colons apart from the folder.
        return cls(user + at + name.strip("[]"), folder, port)


def read_hosts(path: str | os.PathLike[str]) -> list[Host]:
    """The hosts of a list, one to a line; empty lines and what follows ``#`` are passed over.

    Raises:
        DeployError: no such file, too long, not text, or a line that is no host (which).
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DeployError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise DeployError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so no list of hosts")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise DeployError(f"{path}: not text ({error.reason}); one host a line") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text:
            continue
        try:
            found.append(Host.parse(text))
        except DeployError as error:
            raise DeployError(f"{Path(path)}, line {number}: {error}") from error
    if not found:
        raise DeployError(f"{path}: names no host; write one a line, such as user@host")
    return found


def distinct(hosts: Iterable[Host]) -> list[Host]:
    """``hosts``, each only once.

    Raises:
        DeployError: one is named twice: two deployments would be in each other's way.
    """
    seen: list[Host] = []
    for host in hosts:
        if host in seen:
            raise DeployError(f"{host.label}: named twice")
        seen.append(host)
    return seen
