"""One device: a real OpenSSH server on loopback with a home, programs and a line of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .line import Line

_WAIT = 10.0

_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {root}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
PrintMotd no
PrintLastLog no
MaxStartups 100
SetEnv HOME={home}
ForceCommand {folder}/login
Subsystem sftp {sftp}
"""

# As a login does: into the home, with the user's shell, which gets the client's words as one
# string.
_LOGIN = """\
#!/bin/sh
printf '%s\\0' "$SSH_ORIGINAL_COMMAND" >> {folder}/commands
cd "$HOME" || exit 255
{before}
exec env -i HOME="$HOME" PATH={path} USER={user} LOGNAME={user} SHELL={shell} LANG=C.UTF-8 \\
  TMPDIR={folder}/tmp PIP_NO_COMPILE=1 SSH_CONNECTION="$SSH_CONNECTION" \\
  {shell} -c "$SSH_ORIGINAL_COMMAND"
"""

_OLD_PYTHON = """\
import sys
sys.version_info = type("version_info", (tuple,), dict(
    zip(("major", "minor", "micro"), map(property, map(
        lambda i: (lambda self: self[i]), range(3))))))(({numbers}, "final", 0))
sys.version = "{version}" + sys.version[sys.version.index(" "):]
sys.hexversion = int("%02x%02x%02xf0" % sys.version_info[:3], 16)
"""


class Device:
    """One device: ``name`` is what a client calls it, ``home`` where it lands, ``line`` the way."""

    def __init__(self, root: Path, name: str, sshd: str) -> None:
        self.name = name
        self.folder = root / "devices" / name
        self.home = self.folder / "home"
        #: Programs of this device alone, first in its PATH.
        self.bin = self.folder / "bin"
        self._root, self._sshd = root, sshd
        self._process: subprocess.Popen[bytes] | None = None
        self._mounted: list[Path] = []
        self._path: tuple[str, ...] = (str(self.bin), "/usr/local/bin", "/usr/bin", "/bin")
        self._shell, self._before = "/bin/sh", ""
        for folder in (self.home, self.bin, self.folder / "tmp"):
            folder.mkdir(parents=True)
        self.program("python3", f'exec {shlex.quote(base_python())} "$@"')
        self.new_host_key()
        self._write_login()
        self.line = Line(self._start())

    # What a test can change, at any time

    def program(self, name: str, script: str) -> Path:
        """Put a program into :attr:`bin`: a shell script with these lines."""
        file = self.bin / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        file.chmod(0o755)
        return file

    def login(
        self,
        *,
        path: Sequence[str | Path] | None = None,
        shell: str | None = None,
        before: str | None = None,
    ) -> None:
        """Change its PATH, its user's shell, or the shell lines that run ``before`` a command."""
        self._path = tuple(map(str, path)) if path is not None else self._path
        self._shell = shell if shell is not None else self._shell
        self._before = before if before is not None else self._before
        self._write_login()

    def without(self, *programs: str) -> None:
        """Take programs away, by how their names begin: ``without("python")``."""
        folder = self.folder / "rest"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for place in ("/bin", "/usr/bin"):
            for entry in os.scandir(place):
                with contextlib.suppress(FileExistsError):
                    if not entry.name.startswith(programs):
                        (folder / entry.name).symlink_to(entry.path)
        for file in self.bin.iterdir():
            if file.name.startswith(programs):
                file.unlink()
        self.login(path=(self.bin, folder))

    def old_python(self, version: str = "3.7.17") -> None:
        """Let its ``python3`` say that it is of this version, however it is asked."""
        folder = self.folder / "old-python"
        make = (base_python(), "-m", "venv", "--without-pip", "--clear", str(folder))
        subprocess.run(make, check=True, capture_output=True)
        site = next(folder.glob("lib/python*/site-packages"))
        source = _OLD_PYTHON.format(numbers=version.replace(".", ", "), version=version)
        (site / "old_python.py").write_text(source, encoding="utf-8")
        (site / "old_python.pth").write_text("import old_python\n", encoding="ascii")
        self.program(
            "python3",
            f'case "$1" in -V|--version) echo "Python {version}"; exit;; esac\n'
            f'exec {shlex.quote(str(folder / "bin/python3"))} "$@"',
        )

    def new_host_key(self) -> None:
        """Give it another host key, which clients do not know yet."""
        make_key(self.folder / "host_key")
        if self._process is not None:
            self.stop()
            self.line.server = self._start()

    def trust(self) -> None:
        """Let clients know its present host key (they know the first one from the start)."""
        hosts = self._root / "known_hosts"
        lines = hosts.read_text(encoding="ascii").splitlines() if hosts.exists() else []
        kept = [line for line in lines if line.split()[0] != self.name]
        kind, key = (self.folder / "host_key.pub").read_text(encoding="ascii").split()[:2]
        hosts.write_text("\n".join([*kept, f"{self.name} {kind} {key}", ""]), encoding="ascii")

    def mount(self, place: Path, options: str) -> str | None:
        """Put a small tmpfs at ``place``: ``options`` are mount's (``size=4m``, ``nr_inodes=50``).

        None, or why this machine cannot.
        """
        place.mkdir(parents=True, exist_ok=True)
        command = ("mount", "-t", "tmpfs", "-o", options, "qmdd-test", str(place))
        why = _run(command)
        if why is None and place not in self._mounted:
            self._mounted.append(place)
        return why

    def read_only(self, place: Path, yes: bool = True) -> None:
        """Make what :meth:`mount` has put at ``place`` read-only, or writable again."""
        mode = "ro" if yes else "rw"
        subprocess.run(("mount", "-o", f"remount,{mode}", str(place)), check=True)

    # What a test can look at

    def commands(self) -> list[str]:
        """The commands that clients have sent, as the user's shell got them."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "commands").read_text(encoding="utf-8").split("\0")[:-1]
        return []

    def processes(self) -> dict[int, str]:
        """What runs on it now: the command lines by process number (Linux only)."""
        mark = f"TMPDIR={self.folder / 'tmp'}".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes():
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if line:
                        found[int(process.name)] = line
        return found

    def log(self) -> str:
        """What its SSH server has written."""
        return (self.folder / "sshd.log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Stop the SSH server; connections that are open stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_WAIT)
            self._process = None

    def close(self) -> None:
        """Stop everything, and unmount."""
        self.line.close()
        self.stop()
        until = time.monotonic() + _WAIT
        while (left := self.processes()) and time.monotonic() < until:
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.01)
        for place in reversed(self._mounted):
            subprocess.run(("umount", "-l", str(place)), check=True)

    def _write_login(self) -> None:
        script = _LOGIN.format(
            folder=shlex.quote(str(self.folder)),
            before=self._before,
            path=shlex.quote(os.pathsep.join(self._path)),
            user=shlex.quote(user_name()),
            shell=shlex.quote(self._shell),
        )
        fresh = self.folder / "login.new"
        fresh.write_text(script, encoding="utf-8")
        fresh.chmod(0o755)
        fresh.rename(self.folder / "login")

    def _start(self) -> int:
        """Start the SSH server; its port."""
        for _ in range(5):  # somebody else may take the port first
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            config = self.folder / "sshd_config"
            values = {"port": port, "folder": self.folder, "root": self._root, "home": self.home}
            config.write_text(_SERVER.format(**values, sftp=_sftp()), encoding="utf-8")
            log = self.folder / "sshd.log"
            log.unlink(missing_ok=True)
            self._process = subprocess.Popen(
                (self._sshd, "-D", "-f", str(config), "-E", str(log)), stdin=subprocess.DEVNULL
            )
            until = time.monotonic() + _WAIT
            while time.monotonic() < until and self._process.poll() is None:
                if log.exists() and f"listening on 127.0.0.1 port {port}" in self.log():
                    return port
                time.sleep(0.01)
            self.stop()
        raise AssertionError(f"sshd does not start: {self.log()}")


def _sftp() -> str:
    places = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/libexec", "/usr/lib/ssh")
    return shutil.which("sftp-server", path=os.pathsep.join(places)) or "internal-sftp"


def user_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def base_python() -> str:
    """The Python that the environment of these tests was made with."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def make_key(file: Path) -> None:
    file.unlink(missing_ok=True)
    line = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "qmdd-test", "-f", str(file))
    subprocess.run(line, check=True)


def _run(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{command[0]} is missing"
    return None if done.returncode == 0 else done.stderr.strip()
