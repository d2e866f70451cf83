"""One connection to a device: OpenSSH, and the agent at its other end.

ssh is the system's own, with the user's own configuration, keys and jump hosts. It is run once for
each device. The one line that the device's shell gets is :func:`bootstrap`; all that follows goes
through the pipe as data.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import DeployError
from .answers import bytes_of, checked, error_number
from .hosts import Host
from .ssh_words import explain

#: Oldest Python that the agent is written for; a deployment asks for more.
AGENT_PYTHON = (3, 8)
#: Seconds between signs of life; the agent gives up after 60 without any.
ALIVE = 10.0
#: Bytes in one request: as many as a line carries in about a second, so that a slow line is not
#: taken for a dead one, and a fast one does not wait for answers.
CHUNK, LEAST_CHUNK, MOST_CHUNK = 1 << 15, 1 << 13, 1 << 22
#: Seconds of one request, beyond which the next one is smaller, and below which it is larger.
_SLOW, _FAST = 1.0, 0.25
#: Times the patience, until the device's Python must have said something.
_LOGIN = 4
#: Seconds that a person has for a password.
_PERSON = 300.0
#: Before the agent answers, a login shell may print its own greetings; more is no greeting.
_GREETINGS = 1 << 20
_MARK = re.compile(rb"qmdd-agent (\d+)\.(\d+)\s*")
#: No character in it means anything to a shell inside single quotes, not even to csh or fish.
_START = (
    'import sys;print(chr(10)+"qmdd-agent %d.%d"%sys.version_info[:2],flush=True);'
    "b=sys.stdin.buffer;"
    'exec(compile(b.read(int(b.readline())),"qmdd-agent","exec"))'
)

Words = Callable[[str], None]

_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()


def close_all() -> None:
    """End every connection of this process, from another thread than those that use them."""
    for connection in list(_OPEN):
        connection.kill()


def bootstrap(python: str) -> str:
    """The line for the device's shell: start ``python``, which reads the agent from its input."""
    return f"exec {shlex.quote(python)} -I -c {shlex.quote(_START)}"


def ssh_arguments(
    host: Host, *, config: Path | None = None, ask: bool = False, patience: int = 15
) -> list[str]:
    """The ssh command line up to the destination.

    Args:
        host: where to.
        config: a configuration file in place of the user's own.
        ask: passwords and unknown host keys may be asked for on the terminal.
        patience: seconds to wait for a connection, and for a dead one to come back.
    """
    options = {
        "BatchMode": "no" if ask else "yes",
        "ConnectTimeout": str(patience),
        "ServerAliveInterval": str(max(1, patience // 3)),
        "ServerAliveCountMax": "3",
        "ClearAllForwardings": "yes",
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "LogLevel": "ERROR",
    }
    arguments = ["ssh", "-T", "-a", "-x"]
    if config is not None:
        arguments += ["-F", str(config)]
    for name, value in options.items():
        arguments += ["-o", f"{name}={value}"]
    if host.port is not None:
        arguments += ["-p", str(host.port)]
    # After -- nothing is an option, whatever it begins with.
    return [*arguments, "--", host.destination]


class Connection:
    """An agent on ``host``, ready to be asked; close it, or leave its ``with`` block.

    Args:
        host: where to.
        python: the device's Python that runs the agent.
        config: as for :func:`ssh_arguments`, like ``ask`` and ``patience``.

    Attributes:
        python_version: of that Python, such as ``(3, 10)``.

    Raises:
        DeployError: no connection, or no fitting Python there; in one line with what to do.
    """

    def __init__(
        self,
        host: Host,
        *,
        python: str = "python3",
        config: Path | None = None,
        ask: bool = False,
        patience: int = 15,
    ) -> None:
        program = shutil.which("ssh")
        if program is None:
            raise DeployError("ssh is not installed here; install OpenSSH's client")
        self.host = host
        arguments = ssh_arguments(host, config=config, ask=ask, patience=patience)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(  # noqa: S603
            [program, *arguments[1:], bootstrap(python)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            # Ctrl-C is for us: we end the agent in order.
            start_new_session=not ask,
        )
        _OPEN.add(self)
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._late = False
        limit = _PERSON if ask else _LOGIN * float(patience)
        late = threading.Timer(limit, self._give_up)
        late.daemon = True
        late.start()
        try:
            self.python_version = self._greet(python)
            late.cancel()
            self._send_agent()
            if "ready" not in self._answer():
                raise DeployError(f"{host.label}: what answers there is not the agent")
        except BaseException:
            self.close()
            if self._late:
                raise DeployError(
                    f"{host.label}: its login did not come to a command within {limit:.0f} s; try "
                    "ssh by hand: does it wait for something?"
                ) from None
            raise
        finally:
            late.cancel()
        threading.Thread(target=self._stay_alive, daemon=True).start()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent and ssh; a second call does nothing."""
        self._closed.set()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def kill(self) -> None:
        """End ssh at once; whoever waits for an answer gets an error."""
        self._closed.set()
        self._process.kill()

    def ask(self, do: str, /, **what: object) -> dict[str, Any]:
        """Ask the agent for one thing and wait for its answer; ``do`` names a ``do_…`` of its.

        Raises:
            DeployError: it is refused or fails there, the answer is none, or the connection breaks.
        """
        self._send(json.dumps({"do": do, **what}).encode() + b"\n")
        return self._checked(do, self._result())

    def put(self, name: str, size: int, offset: int, source: IO[bytes]) -> Iterator[int]:
        """Send the object ``name`` of ``size`` bytes from ``offset``; yield what is there by then.

        Raises:
            DeployError: as :meth:`ask`; or the file is shorter than it was.
        """
        source.seek(offset)
        chunk = CHUNK
        while offset < size:
            started = time.monotonic()
            block = source.read(min(chunk, size - offset))
            if not block:
                raise DeployError(f"{source.name}: changed while it was copied; deploy again")
            asked = {"do": "put", "name": name, "size": size, "offset": offset, "count": len(block)}
            self._send(json.dumps(asked).encode() + b"\n" + block)
            self._result()
            offset += len(block)
            took = time.monotonic() - started
            if took > _SLOW:
                chunk = max(LEAST_CHUNK, chunk // 2)
            elif took < _FAST:
                chunk = min(MOST_CHUNK, 2 * chunk)
            yield offset

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        folder: str = "",
        words: Words | None = None,
    ) -> tuple[int | None, str]:
        """Run a program there, no shell between: its exit code (``None``: out of time), its output.

        Args:
            arguments: the program and its arguments.
            timeout: seconds that it may take.
            environment: variables beside the device's own.
            folder: where it is run; default: the folder of the deployment.
            words: called with what it says on standard error, as it comes.

        Raises:
            DeployError: as :meth:`ask`.
        """
        asked = {
            "do": "run",
            "arguments": list(arguments),
            "timeout": timeout,
            "environment": dict(environment or {}),
            "folder": folder,
        }
        self._send(json.dumps(asked).encode() + b"\n")
        found = self._checked("run", self._result(words))
        return found["rc"], found["out"]

    def read(self, *path: str) -> bytes | None:
        """A small file of the device's folder; ``None`` if there is none.

        Raises:
            DeployError: as :meth:`ask`.
        """
        data = self.ask("read", path=path)["data"]
        try:
            return bytes_of(data)
        except DeployError as error:
            raise DeployError(f"{self.host.label}: {error}") from error

    def _checked(self, do: str, found: dict[str, Any]) -> dict[str, Any]:
        try:
            return checked(do, found)
        except DeployError as error:
            raise DeployError(f"{self.host.label}: {error}") from error

    def _greet(self, python: str) -> tuple[int, int]:
        """Wait for the mark that the device's Python prints, behind whatever a shell prints."""
        seen = 0
        while seen < _GREETINGS:
            line = self._line()
            seen += len(line)
            found = _MARK.fullmatch(line)
            if found:
                version = int(found[1]), int(found[2])
                if version < AGENT_PYTHON:
                    raise DeployError(
                        f"{self.host.label}: its {python} is Python {version[0]}.{version[1]}, too "
                        "old; name another one there with --python"
                    )
                return version
        raise DeployError(
            f"{self.host.label}: its login shell prints without end before a command runs"
        )

    def _send_agent(self) -> None:
        source = Path(__file__).with_name("agent.py").read_bytes()
        self._send(f"{len(source)}\n".encode() + source)

    def _stay_alive(self) -> None:
        while not self._closed.wait(ALIVE):
            with contextlib.suppress(DeployError):
                self._send(b"\n")

    def _send(self, data: bytes) -> None:
        stream = self._process.stdin
        assert stream is not None  # noqa: S101 - it is a pipe
        try:
            with self._sending:
                stream.write(data)
                stream.flush()
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _line(self) -> bytes:
        stream = self._process.stdout
        assert stream is not None  # noqa: S101 - it is a pipe
        try:
            line = stream.readline(64 << 20)
        except (OSError, ValueError) as error:
            raise self._lost() from error
        if not line.endswith(b"\n"):
            raise self._lost()
        return line

    def _answer(self) -> dict[str, Any]:
        try:
            found = json.loads(self._line())
        except (ValueError, RecursionError) as error:
            raise DeployError(f"{self.host.label}: the agent's answer is not JSON") from error
        if not isinstance(found, dict):
            raise DeployError(f"{self.host.label}: the agent's answer is not an object")
        return found

    def _result(self, words: Words | None = None) -> dict[str, Any]:
        while "words" in (found := self._answer()):
            if words is not None:
                words(str(found["words"]))
        if found.get("ok"):
            return found
        if "refused" in found:
            raise DeployError(f"{self.host.label}: {found['refused']}")
        where = f"{found['where']}: " if found.get("where") else ""
        raise DeviceOSError(f"{self.host.label}: {where}{found.get('reason')}", error_number(found))

    def _lost(self) -> DeployError:
        """Why there is no connection (any more), from ssh's exit code and words."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(5)
        try:
            self._said.seek(0)
            said = self._said.read(1 << 16).decode(errors="replace")
        except (OSError, ValueError):
            said = ""
        return DeployError(f"{self.host.label}: {explain(self._process.poll(), said)}")


class DeviceOSError(DeployError):
    """What the device's system refuses; ``errno`` is its number there (Linux's)."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number
