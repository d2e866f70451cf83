"""A long run: every kind in its own processes, part by part, gone on with where it was."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qmdd.runtime.files import write_atomically

from .board import Board
from .found import keep_fault
from .guided import available
from .kind import Kind
from .kinds import KINDS
from .outcome import CRASH, HANG, OUTCOMES, Outcome
from .worker import TOO_MUCH, board_path

_ROOT = Path(__file__).resolve().parents[2]
#: Cases of one process; a new one frees what libraries keep.
_PART = 20_000
#: Seconds that a process may take to begin: it makes the seeds.
_BEGIN = 300.0
#: Seconds between two looks at a process.
_LOOK = 0.2

Report = Callable[[str, int, int], None]


@dataclasses.dataclass
class Tally:
    """What a kind came to.

    Attributes:
        cases: inputs that were tried.
        guided: of them guided by coverage.
        outcomes: by name.
        seconds: of the processes, their beginnings included.
    """

    cases: int = 0
    guided: int = 0
    outcomes: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    seconds: float = 0.0


def _memory() -> Path | None:
    """A folder in memory, where there is such a place: files of cases live for milliseconds."""
    place = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
    return place if os.access(place, os.W_OK) else None


def planned(total: int | None, names: Sequence[str]) -> dict[str, int]:
    """Cases for each kind: its own number, or shares of ``total`` by these numbers."""
    own = {name: KINDS[name].cases for name in names or KINDS}
    if total is None:
        return own
    every = sum(own.values())
    return {name: max(1, round(total * count / every)) for name, count in own.items()}


class Campaign:
    """A run in the folder ``work``.

    Args:
        work: seeds, faults, what is done so far.
        seed: of all inputs.
        report: called with ``(kind, done, total)``.
        kinds: all that there are; others than ours with a ``program`` that knows them.
        program: a process's command line up to what :mod:`.worker` and :mod:`.guided` take.
    """

    def __init__(
        self,
        work: Path,
        seed: int,
        report: Report | None = None,
        *,
        kinds: Mapping[str, Kind] = KINDS,
        program: Sequence[str] = (),
    ) -> None:
        self.work, self.seed = work, seed
        self.kinds, self.program = kinds, program
        self._say = report or (lambda _what, _done, _total: None)
        work.mkdir(parents=True, exist_ok=True)
        self._path = work / f"tally-{seed}.json"
        self.tallies: dict[str, Tally] = {}
        if self._path.exists():
            held = json.loads(self._path.read_text(encoding="utf-8"))
            self.tallies = {name: Tally(**plain) for name, plain in held.items()}

    def run(self, plan: dict[str, int]) -> None:
        """Try what is left of ``plan``."""
        total = sum(plan.values())
        for name, count in plan.items():
            tally = self.tallies.setdefault(name, Tally())
            while tally.cases < count:
                self._part(self.kinds[name], tally, min(_PART, count - tally.cases), total)
                plain = {key: dataclasses.asdict(one) for key, one in self.tallies.items()}
                write_atomically(self._path, json.dumps(plain, indent=1).encode())

    def _part(self, kind: Kind, tally: Tally, count: int, total: int) -> None:
        path = board_path(self.work, kind.name)
        path.unlink(missing_ok=True)
        board = Board(path)
        guided = bool(kind.guided) and available() and not self.program
        before = sum(one.cases for one in self.tallies.values())
        started = time.monotonic()
        while (done := board.look()[0]) < count:
            fault = self._process(
                kind, tally.cases + done, count - done, guided, board, before, total
            )
            if fault is not None:
                keep_fault(self.work / "faults", kind.name, fault, board.case())
                board.look()
                board.count(fault.name)
            elif board.look()[0] == done:
                raise RuntimeError(f"{kind.name}: its process tries nothing; see {self.work}")
        tried, outcomes = board.look()
        board.close()
        tally.cases += tried
        tally.guided += tried if guided else 0
        for name, number in outcomes.items():
            tally.outcomes[name] += number
        tally.seconds += time.monotonic() - started

    def _process(
        self,
        kind: Kind,
        first: int,
        count: int,
        guided: bool,
        board: Board,
        before: int,
        total: int,
    ) -> Outcome | None:
        """One process to its end; the fault that ended it, if one did."""
        words = [str(self.work), kind.name]
        if guided:
            words += [str(self.seed + first), str(count)]
        else:
            words += [str(self.seed), str(first), str(count)]
        module = f"hardening.fuzzing.{'guided' if guided else 'worker'}"
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        log = self.work / f"{kind.name}.log"
        with open(log, "ab") as said, tempfile.TemporaryDirectory(dir=_memory()) as scratch:
            process = subprocess.Popen(
                [*(self.program or (sys.executable, "-m", module)), *words],
                stdout=subprocess.DEVNULL,
                stderr=said,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TMPDIR": scratch},
            )
            late = self._watch(process, kind, board, before, total)
        if late:
            return Outcome(HANG, "no end", f"no end within {kind.seconds:.0f} s")
        if process.returncode in (0, TOO_MUCH):
            return None
        words_said = log.read_bytes()[-4000:].decode(errors="replace")
        return Outcome(CRASH, f"exit code {process.returncode}", words_said)

    def _watch(
        self, process: subprocess.Popen[bytes], kind: Kind, board: Board, before: int, total: int
    ) -> bool:
        """Wait for the end; whether it had to be killed because one case took too long."""
        seen, since = board.look()[0], time.monotonic()
        limit = _BEGIN
        while process.poll() is None:
            time.sleep(_LOOK)
            done = board.look()[0]
            if done != seen:
                seen, since, limit = done, time.monotonic(), kind.seconds
                self._say(kind.name, before + done, total)
            elif time.monotonic() - since > limit:
                process.kill()
                process.wait()
                return True
        return False


def record_of(campaign: Campaign, faults: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What a run came to, plain data for its record."""
    kinds = {}
    for name, tally in campaign.tallies.items():
        kinds[name] = {
            "what": campaign.kinds[name].what,
            "cases": tally.cases,
            "guided": tally.guided,
            **{key: number for key, number in tally.outcomes.items() if number},
            "seconds": round(tally.seconds, 1),
            "per_second": round(tally.cases / tally.seconds) if tally.seconds else None,
        }
    every = [tally.outcomes for tally in campaign.tallies.values()]
    return {
        "seed": campaign.seed,
        "cases": sum(tally.cases for tally in campaign.tallies.values()),
        "outcomes": {name: sum(one[name] for one in every) for name in OUTCOMES},
        "faults": list(faults),
        "kinds": kinds,
    }
