"""A process of its own that tries inputs: whatever ends it, its parent knows the input.

``python -m hardening.fuzzing.worker WORK KIND SEED FIRST COUNT``
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qmdd.runtime.process import peak_memory

from .kind import Kind, Reader

if TYPE_CHECKING:
    from .board import Board

#: Of the address space: the machine must not run out of memory before the fault is seen.
_SPACE = 8 << 30
#: Exit code after a case that took too much memory: the peak of a process never falls.
TOO_MUCH = 3


def main(words: list[str], kinds: Mapping[str, Kind] | None = None) -> None:
    """Try ``COUNT`` cases from ``FIRST`` on; ``kinds`` in place of ours."""
    from .board import Board
    from .found import keep_fault
    from .kind import case_of
    from .kinds import KINDS
    from .outcome import ACCEPTED, REFUSED, judge
    from .workshop import Workshop

    work, kind = Path(words[0]), (kinds or KINDS)[words[1]]
    seed, first, count = (int(word) for word in words[2:5])
    prepare()
    workshop = Workshop(work)
    seeds = kind.seeds(workshop)
    board = Board(board_path(work, kind.name))
    with scratch_folder() as scratch:
        read = kind.reader(workshop, Path(scratch))
        for data in seeds:
            outcome = judge(read, data)
            if outcome.name not in (ACCEPTED, REFUSED):
                keep_fault(work / "faults", kind.name, outcome, data)
        for number in range(first, first + count):
            try_one(work, kind, read, board, case_of(kind, seeds, seed, number))


def try_one(work: Path, kind: Kind, read: Reader, board: Board, data: bytes) -> None:
    """Read one input, count what came of it, keep it if that is a fault.

    A case that took too much memory ends the process: its peak never falls.
    """
    from .found import keep_fault
    from .outcome import FAULTS, MEMORY, MOST_MEMORY, Outcome, judge

    board.begin(data)
    outcome = judge(read, data)
    peak = peak_memory()
    if peak > MOST_MEMORY:
        outcome = Outcome(MEMORY, outcome.where or outcome.name, f"{peak >> 20} MiB")
    if outcome.name in FAULTS:
        keep_fault(work / "faults", kind.name, outcome, data)
    board.count(outcome.name)
    if peak > MOST_MEMORY:
        os._exit(TOO_MUCH)  # libFuzzer would take an exception for a fault of its target


def prepare() -> None:
    """One thread, no core files, no warnings; nothing is told to makers of runtimes."""
    import warnings

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_SPACE, _SPACE))


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the files of the cases; the parent sees to it, however this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="qmdd-fuzz-")
    tempfile.tempdir = folder.name  # what is read makes files, too
    return folder


def board_path(work: Path, kind: str) -> Path:
    """Where the board of a kind lies."""
    return work / f"{kind}.board"


if __name__ == "__main__":
    main(sys.argv[1:])
