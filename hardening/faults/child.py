"""A command in a process of its own, forked from one that has imported everything."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .moments import Moments

#: Seconds that any command here may take, and that what it has started may outlive it.
LIMIT, GRACE = 300.0, 20.0
#: Linux's number for "what my children leave becomes my child".
_PR_SET_CHILD_SUBREAPER = 36
_HELD = (signal.SIGINT, signal.SIGTERM)


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        moments: how many it went through; 0 if it was killed.
        seconds: that it took.
        orphans: processes that it had started and that had to be killed.
    """

    code: int
    moments: int
    seconds: float
    orphans: int


def adopt() -> None:
    """Let what killed children leave become children of this process, so that it is seen."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def run(
    arguments: Sequence[str],
    place: Path,
    *,
    kill_at: int | None = None,
    kill_after: float | None = None,
    number: int = signal.SIGKILL,
    before: Callable[[], None] | None = None,
    stdout: int | None = None,
    environment: Mapping[str, str] | None = None,
    adopted: bool = False,
) -> Ended:
    """Run ``qmdd`` with ``arguments`` in ``place``; it prints to ``../printed`` and ``../said``.

    Args:
        arguments: of the command line.
        place: where its moments are counted.
        kill_at: number of the moment at which it is killed.
        kill_after: seconds after which it is killed.
        number: of the signal that it gets then.
        before: is run in its process, before it.
        stdout: a descriptor in place of ``../printed``.
        environment: variables that are set for it.
        adopted: this process has other children, so that orphans are not looked for.
    """
    receiver, sender = os.pipe()
    # In the child they wait until the command itself has begun.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    started = time.perf_counter()
    child = os.fork()
    if not child:
        os.close(receiver)
        os.environ.update(environment or {})
        _command(arguments, place, kill_at, sender, before or (lambda: None), stdout)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    os.close(sender)
    handle = os.pidfd_open(child)
    try:
        os.read(receiver, 1)  # it has begun
        if not select.select([handle], [], [], LIMIT if kill_after is None else kill_after)[0]:
            os.kill(child, number)
            if not select.select([handle], [], [], LIMIT)[0]:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(handle)
    seconds = time.perf_counter() - started
    with os.fdopen(receiver) as told:
        # What it has started may hold the other end: only what is there is read.
        ready = select.select([told], [], [], 0)[0]
        text = os.read(told.fileno(), 100).decode() if ready else ""
    if seconds > LIMIT:
        raise TimeoutError(f"qmdd {' '.join(arguments)}: more than {LIMIT:.0f} s")
    orphans = 0 if adopted else _end_orphans()
    return Ended(os.waitstatus_to_exitcode(status), int(text or 0), seconds, orphans)


def _command(
    arguments: Sequence[str],
    place: Path,
    kill_at: int | None,
    told: int,
    before: Callable[[], None],
    stdout: int | None,
) -> None:
    """In the child: the command, and its end."""
    code = 1
    try:
        os.chdir(place)
        nothing = os.open(os.devnull, os.O_RDONLY)
        new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        said = os.open(place.parent / "said", new, 0o666)
        printed = os.open(place.parent / "printed", new, 0o666) if stdout is None else stdout
        for number, handle in enumerate((nothing, printed, said)):
            os.dup2(handle, number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "w" if n else "r") for n in range(3))

        from qmdd.cli import errors, main

        signal.signal(signal.SIGINT, signal.default_int_handler)
        errors.take_signals()
        moments = Moments(os.fspath(place), kill_at)
        before()
        try:
            os.write(told, b"b")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
            main.cli.main(args=list(arguments), prog_name="qmdd")
        except SystemExit as ended:
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
            code = ended.code if isinstance(ended.code, int) else 1
        os.write(told, str(moments.count).encode())
        sys.stderr.flush()
    finally:
        os._exit(code)


def _children() -> list[int]:
    held = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return [int(number) for number in held.split()]


def _end_orphans() -> int:
    """Wait for what the command had started to end by itself; how many did not."""
    end = time.monotonic() + GRACE
    killed = 0
    while found := _children():
        for number in found:
            if time.monotonic() > end:
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)
                killed += 1
            else:
                os.waitpid(number, os.WNOHANG)
        time.sleep(0.01)
    return killed
