"""Run the builder as a process of its own, watched: its time, its memory, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .child import RESULT
from .progress import WHOLE
from .request import BuildRequest

Report = Callable[[str, int, int], None]

#: Starts a builder; the number of the file descriptor for its events is added.
COMMAND = (sys.executable, "-m", f"{__package__}.child")
#: Standard output and error of the builder's process.
OUTPUT = "output.log"
#: Seconds between two looks at the process.
TICK = 0.05
_TOO_LONG = "the builder took longer than --timeout allows; raise it"
#: A longer line is no event of ours.
_MAX_LINE = 1 << 16


def run_builder(
    request: BuildRequest, *, timeout: float, memory_limit: int, report: Report
) -> dict[str, Any]:
    """Build, and give what :func:`.child.build` found.

    Args:
        request: what to build; its folder holds the logs afterwards, however the build ends.
        timeout: seconds that the build may take.
        memory_limit: bytes that the builder's process may hold at once (resident).
        report: called with ``(what is being done, done, total)``.

    Raises:
        BuildError: it failed, was killed, took too long or too much; one line says which. An
            interruption ends the builder, too.
    """
    read, write = os.pipe()
    with open(Path(request.folder) / OUTPUT, "wb") as output:
        try:
            process = subprocess.Popen(  # noqa: S603 - this very project, no shell
                [*COMMAND, str(write)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                start_new_session=True,  # Ctrl-C reaches this process only, which then ends it
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # nothing is imported from here
            )
        finally:
            os.close(write)
    watched = _Watched(process, read, memory_limit, report)
    try:
        watched.ask(request.to_json())
        error = watched.follow(time.monotonic() + timeout)
    finally:
        os.close(read)
        _end(process)
    if error is None and process.returncode == 0:
        found: dict[str, Any] = json.loads((Path(request.folder) / RESULT).read_bytes())
        return {**found, "peak_memory": max(watched.peak, int(found["peak_memory"]))}
    raise BuildError(error or _how_it_ended(process.returncode, Path(request.folder) / OUTPUT))


class _Watched:
    """A builder's process and what it says."""

    def __init__(
        self, process: subprocess.Popen[bytes], events: int, memory_limit: int, report: Report
    ) -> None:
        self._process, self._events, self._limit = process, events, memory_limit
        self._report = report
        self._rest = b""
        #: Most bytes seen at once.
        self.peak = 0

    def ask(self, line: str) -> None:
        """Send the request; a process that is gone already is found out later."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(line.encode() + b"\n")

    def follow(self, deadline: float) -> str | None:
        """Pass events on until the process says no more; its error, or why it has to end."""
        error: str | None = None
        while True:
            ready, _, _ = select.select([self._events], [], [], TICK)
            if ready:
                data = os.read(self._events, 1 << 16)
                if not data:
                    break
                error = self._hear(data) or error
            resident = _resident(self._process.pid)
            self.peak = max(self.peak, resident)
            if resident > self._limit:
                return (
                    f"the builder took more than its memory limit of {self._limit >> 20} MiB; "
                    "raise --memory-limit, or use a smaller --workspace, --batch or --side"
                )
            if time.monotonic() > deadline:
                return _TOO_LONG
        try:
            self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return _TOO_LONG
        return error

    def _hear(self, data: bytes) -> str | None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:_MAX_LINE]
        error = None
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if "error" in event:
                error = str(event["error"])
            elif "what" in event:
                self._report(f"building: {event['what']}", int(event["done"]), WHOLE)
        return error


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds, 0 where the system does not tell."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started, if it still runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(code: int, output: Path) -> str:
    said = _last_line(output)
    words = f"; its last words: {said}" if said else ""
    if code == -signal.SIGKILL:
        return (
            "the builder was killed, most likely by the system for want of memory; close other "
            f"programs, or use a smaller --workspace, --batch or --side{words}"
        )
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"TensorRT crashed ({name}) in the builder's process{words}"
    return f"the builder ended with exit code {code} and no engine{words}"


def _last_line(output: Path, most: int = 300) -> str:
    lines = output.read_bytes()[-4096:].decode(errors="replace").split("\n")
    return next((" ".join(line.split())[:most] for line in reversed(lines) if line.strip()), "")
