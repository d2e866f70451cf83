"""What became of one input."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import NamedTuple

from qmdd.cli.errors import message_of

from .kind import NotRight, Reader, WrongHash

REFUSED, ACCEPTED = "refused", "accepted"
#: What must not happen.
TRACEBACK, CRASH, HANG, MEMORY = "traceback", "crash", "hang", "memory"
WRONG_HASH, NOT_RIGHT = "wrong hash accepted", "not right"
OUTCOMES = (REFUSED, ACCEPTED, TRACEBACK, CRASH, HANG, MEMORY, WRONG_HASH, NOT_RIGHT)
FAULTS = OUTCOMES[2:]
#: Peak memory of a process that reads hostile inputs, bytes.
MOST_MEMORY = 1 << 30


class Outcome(NamedTuple):
    """One input's.

    Attributes:
        name: one of :data:`OUTCOMES`.
        where: of a fault, what tells it from others: the error and the line that it came from.
        text: of a refusal the line that is shown; of a fault more about it.
    """

    name: str
    where: str = ""
    text: str = ""


def judge(read: Reader, data: bytes) -> Outcome:
    """Read ``data``; whatever is raised is an outcome."""
    try:
        read(data)
    except WrongHash as error:
        return Outcome(WRONG_HASH, str(error), str(error))
    except NotRight as error:
        return Outcome(NOT_RIGHT, _place(error), str(error))
    except MemoryError as error:
        return Outcome(MEMORY, _place(error), _told(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - that is what is looked for
        text = message_of(error)
        if text.startswith(("unexpected", "not enough memory")):
            return Outcome(TRACEBACK, _place(error), _told(error))
        return Outcome(REFUSED, text=text)
    return Outcome(ACCEPTED)


def _place(error: BaseException) -> str:
    """The error's class and the innermost lines of ours and of all."""
    frames = traceback.extract_tb(error.__traceback__)
    names = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames]
    ours = [
        f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}"
        for frame in frames
        if "/hardening/" not in frame.filename and "site-packages" not in frame.filename
    ]
    return f"{type(error).__name__} at {ours[-1] if ours else names[-1]}"


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]
