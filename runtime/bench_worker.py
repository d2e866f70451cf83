"""The other end of :mod:`.bench_child`: processes that are asked for runs in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from .errors import SessionError

#: Starts a process that times sessions; the number of its events' descriptor is added.
COMMAND = (sys.executable, "-m", f"{__package__}.bench_child")
#: Turns that are taken even where the time is up: fewer have no spread.
LEAST_TURNS = 3
#: A block of runs takes about this many seconds, so that each turn sees the same machine.
_BLOCK_SECONDS = 0.1
_MOST_RUNS = 50

#: Called with seconds spent and seconds planned.
Tick = Callable[[float, float], None]


@dataclasses.dataclass
class Blocks:
    """Seconds of every run that counts, a list a turn.

    Attributes:
        wall: of the clock.
        cpu: of the processor, over all threads.
    """

    wall: list[list[float]] = dataclasses.field(default_factory=list)
    cpu: list[list[float]] = dataclasses.field(default_factory=list)


class Peaks(NamedTuple):
    """The most bytes that a process held (resident), 0 where the system does not tell.

    Attributes:
        load: until its model was loaded.
        run: from then on.
    """

    load: int
    run: int


class Worker:
    """A process that has loaded one model.

    Attributes:
        loaded: what it said after loading: ``import_seconds``, ``load_seconds``,
            ``load_cpu_seconds`` (of the processor), ``first_seconds``, ``base_memory``,
            ``loaded_memory`` (bytes), ``about``, ``logits``.
    """

    def __init__(self, name: str, request: Mapping[str, Any], command: Sequence[str]) -> None:
        self._name = name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill
        read, write = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very project, no shell
                [*command, str(write)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(write,),
                start_new_session=True,  # Ctrl-C reaches this process only, which then ends it
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # nothing is imported from here
                text=True,
                bufsize=1,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._events = os.fdopen(read, encoding="utf-8")
        try:
            self.loaded: dict[str, Any] = self._ask(dict(request))
        except BaseException:
            self.kill()
            raise

    def run(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds of ``count`` runs: of the clock, and of the processor."""
        answer = self._ask({"run": count})
        return answer["wall"], answer["cpu"]

    def close(self) -> Peaks:
        """End the process; the most bytes that it held."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._process.stdin.close()
        answer = self._answer()
        self._process.wait()
        return Peaks(answer["load_peak_memory"], answer["run_peak_memory"])

    def kill(self) -> None:
        """End the process at once; harmless if it has ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._events.close()
        self._errors.close()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(BrokenPipeError):  # why it is gone is found out below
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._events.readline()
        if not line.endswith("\n"):
            raise SessionError(f"{self._name}: {self._how_it_ended()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SessionError(str(answer["error"]))
        return answer

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return (
                "the process that timed it was killed, as where memory runs out; use a smaller "
                "--batch or --size"
            )
        self._errors.seek(0)
        lines = self._errors.read()[-4096:].decode(errors="replace").strip().splitlines()
        words = f": {' '.join(lines[-1].split())[:300]}" if lines else ""
        told = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the process that timed it ended with {told}{words}"


@contextlib.contextmanager
def workers(
    requests: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]],
) -> Iterator[dict[str, Worker]]:
    """A loaded process for each ``name: (request, command)``; none is left when the block ends.

    Raises:
        SessionError: one cannot load its model; it says why.
    """
    started: dict[str, Worker] = {}
    try:
        for name, (request, command) in requests.items():
            started[name] = Worker(name, request, command)
        yield started
    finally:
        for worker in started.values():
            worker.kill()


def take_turns(
    started: Mapping[str, Worker], seconds: float, tick: Tick | None = None
) -> dict[str, Blocks]:
    """Let the processes run in turn, a block each, for about ``seconds``.

    Every second turn goes the other way round, so that none always runs behind the same one.
    """
    found = {name: Blocks() for name in started}
    begun = time.monotonic()
    counts = {name: _runs_of(worker) for name, worker in started.items()}
    names, turns = list(started), 0
    while turns < LEAST_TURNS or time.monotonic() - begun < seconds:
        for name in names if turns % 2 else reversed(names):
            wall, cpu = started[name].run(counts[name])
            found[name].wall.append(wall)
            found[name].cpu.append(cpu)
            if tick is not None:
                tick(time.monotonic() - begun, seconds)
        turns += 1
    return found


def _runs_of(worker: Worker) -> int:
    """How many runs make a block."""
    wall, _ = worker.run(1)
    return max(1, min(_MOST_RUNS, round(_BLOCK_SECONDS / max(wall[0], 1e-6))))
