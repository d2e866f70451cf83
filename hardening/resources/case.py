"""A hostile input, and what a command makes of it: exit code, words, seconds, memory."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: The most that a command may hold while it reads what is hostile, bytes resident.
BAR = 1 << 30
#: Seconds after which a command counts as hanging.
PATIENCE = 300


@dataclasses.dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        name: what it is.
        make: writes it into an empty folder.
        command: arguments of ``qmdd``; ``{}`` stands for that folder.
        ends: the exit codes that are right.
        says: part of what stderr must say; empty where nothing is refused.
        lines: the most lines that stderr may have: one a file that cannot be used.
    """

    name: str
    make: Callable[[Path], None]
    command: Sequence[str]
    ends: tuple[int, ...] = (1,)
    says: str = ""
    lines: int = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command made of a case.

    Attributes:
        case: its name.
        exit_code: of the command; -1 where it hung.
        said: its stderr.
        seconds: that it took.
        peak: most bytes resident at once.
        faults: what is wrong with it; empty if nothing is.
    """

    case: str
    exit_code: int
    said: str
    seconds: float
    peak: int
    faults: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; without what was said, which holds paths."""
        return {
            "case": self.case,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 2),
            "peak_mib": self.peak >> 20,
            "faults": self.faults,
        }


def tried(case: Case, folder: Path) -> Outcome:
    """Make the input in ``folder``, an empty one, and run the command on it.

    The command is started by a small process: the kernel counts the memory of who starts it, too.
    """
    case.make(folder)
    command = [sys.executable, "-m", "qmdd.cli.main"]
    command += [part.replace("{}", str(folder)) for part in case.command]
    starter = "import json, os, sys; from hardening.resources.case import started; started()"
    with tempfile.TemporaryFile("w+") as said:
        began = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-c", starter, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            errors="replace",
            check=False,
        )
        seconds = time.monotonic() - began
        said.seek(0)
        words = said.read()
    code, peak = (int(part) for part in process.stdout.split())
    return Outcome(case.name, code, words, seconds, peak, _faults(case, code, words, peak))


def started() -> None:
    """Run ``sys.argv[1:]`` and print its exit code and peak memory; for :func:`tried` alone."""
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    late = time.monotonic() + PATIENCE
    while not (found := os.wait4(process.pid, os.WNOHANG))[0]:
        if time.monotonic() > late:
            process.kill()
            found = os.wait4(process.pid, 0)
            break
        time.sleep(0.01)
    _, status, usage = found
    sys.stdout.write(f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss << 10}\n")


def _faults(case: Case, code: int, said: str, peak: int) -> list[str]:
    found = []
    if code not in case.ends:
        found.append(f"exit code {code}")
    if "Traceback" in said or "defect of qmdd" in said:
        found.append("an unexpected error")
    if len(said.splitlines()) > case.lines:
        found.append(f"{len(said.splitlines())} lines on stderr")
    if case.says not in said:
        found.append(f"does not say {case.says!r}")
    if peak > BAR:
        found.append(f"{peak >> 20} MiB")
    return found
