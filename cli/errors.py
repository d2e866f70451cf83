"""Every failure as one line on stderr: what happened, where, what to do.

Exit codes: 0 success; 1 failure, or a result that misses its bar; 2 wrong usage; 130 Ctrl-C;
143 terminated. ``--debug`` puts the traceback before the line.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

import click

FAILURE, INTERRUPTED, TERMINATED = 1, 130, 143
#: Of a line of ours; a path alone may have 4,096 bytes.
_LONGEST = 6000

#: The extra that holds the libraries of a command.
EXTRAS = {
    "export": "export",
    "targets": "export",
    "verify": "export",
    "build": "rtx",
    "inspect": "export",
    "report": "report",
    "bench": "runtime",
    "compare": "export",
    "detect": "runtime",
    "demo": "demo",
    "deploy": "runtime",
    "rollback": "runtime",
    "watch": "runtime",
    "eval": "runtime",
    "scan": "scan",
    "train": "train",
    "calibrate": "train",
    "sensitivity": "train",
    "freeze": "train",
    "import": "train",
    "doctor": "runtime",
    "estimate": "export",
    "stats": "export",
    "zoo": "runtime",
}

#: Base of each room's own errors: their messages are already written for the user.
_ROOM_ERRORS = {
    "models.errors": "ModelError",
    "calibration.errors": "CalibrationError",
    "exporter.errors": "ExportError",
    "runtime.errors": "RuntimeFailure",
}
#: What torch, oneDNN below it, safetensors and threads say where a MemoryError is meant.
_NO_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "Cannot allocate memory",
    "could not create a primitive",
    "can't start new thread",
)
_ROOT = (__package__ or "qmdd.cli").rpartition(".")[0]


class CommandError(Exception):
    """A failure that a command itself finds; its message is for the user."""


class Terminated(KeyboardInterrupt):
    """SIGTERM; unwinds like Ctrl-C."""


#: Signals that have come. A library that is being imported may turn an interruption into an error
#: of its own, such as one of numpy's that it cannot be loaded.
_came: list[int] = []


def take_signals() -> None:
    """Let SIGINT and SIGTERM interrupt the command from here on; an ignored SIGINT stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def leave_signals() -> None:
    """Let them end the process: an interpreter that is ending would answer with a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@dataclasses.dataclass
class State:
    """What the commands tell the place where errors end.

    Attributes:
        debug: show tracebacks.
        extra: the extra that the running command needs.
        kept: says what an interruption leaves; set by a command that writes something.
    """

    debug: bool = False
    extra: str = "export"
    kept: Callable[[], str] | None = None


def on_interrupt(kept: Callable[[], str]) -> None:
    """Let the running command say what remains if it is interrupted from here on."""
    state = click.get_current_context().find_root().obj
    if isinstance(state, State):
        state.kept = kept


def needs_extra(extra: str) -> None:
    """Let the running command name another extra than its own where a library is missing."""
    state = click.get_current_context().find_root().obj
    if isinstance(state, State):
        state.extra = extra


def explain(error: BaseException, state: State) -> int:
    """Say on stderr what ``error`` means and return the exit code."""
    if isinstance(error, SystemExit):  # click's and rich's way to end at a closed pipe
        return error.code if isinstance(error.code, int) else FAILURE
    if isinstance(error, (click.Abort, KeyboardInterrupt)) or _came:
        terminated = isinstance(error.__cause__ or error, Terminated) or signal.SIGTERM in _came
        kept = f"; {state.kept()}" if state.kept else ""
        _say(f"qmdd: {'terminated' if terminated else 'interrupted'}{kept}")
        return TERMINATED if terminated else INTERRUPTED
    if isinstance(error, click.UsageError):
        error.show()
        return error.exit_code
    if state.debug:
        traceback.print_exception(error)
    text = message_of(error, state.extra)
    if isinstance(error, OSError) and not error.filename and state.kept:
        # The system says what failed, but not where (a full disk in the middle of a file).
        text = f"{text}; {state.kept()}"
    _say(f"qmdd: error: {text}")
    _drop_unwritable_stdout()
    return FAILURE


def message_of(error: BaseException, extra: str = "export") -> str:
    """One line for ``error``; ``extra`` is what to install if a library is missing."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, (CommandError, *_room_errors())):
        text = str(error)
    elif isinstance(error, MemoryError) or _is_out_of_memory(error):
        text = "not enough memory; close other programs, or use fewer or smaller images at a time"
    elif isinstance(error, ImportError):
        text = _import_message(error, extra)
    elif isinstance(error, OSError):
        text = _os_message(error)
    else:
        text = (
            f"unexpected {type(error).__name__}: {str(error) or 'no message'}; "
            "this is a defect of qmdd: please report it with what --debug prints"
        )
    return " ".join(text.split())


def _room_errors() -> tuple[type[BaseException], ...]:
    # Looked up, not imported: importing a room costs seconds, and an error of a room that was
    # never imported cannot be at hand.
    found = []
    for module, name in _ROOM_ERRORS.items():
        loaded = sys.modules.get(f"{_ROOT}.{module}")
        if loaded is not None:
            found.append(getattr(loaded, name))
    return tuple(found)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _import_message(error: ImportError, extra: str) -> str:
    library = (error.name or "").partition(".")[0]
    if library == _ROOT:
        return f"this installation lacks {error.name}; install qmdd again"
    if isinstance(error, ModuleNotFoundError):
        from ..runtime.errors import not_installed

        return not_installed(library, extra)
    return (
        f"the library {library or '(unnamed)'} cannot be loaded: {error}; "
        f"install it again: pip install --force-reinstall 'qmdd[{extra}]'"
    )


def _os_message(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error) or type(error).__name__
    advice = {
        errno.ENOSPC: "free some space, then run the same command again",
        errno.EDQUOT: "free some space, then run the same command again",
        errno.EACCES: "choose a place where you may read and write",
        errno.EPERM: "choose a place where you may read and write",
        errno.EROFS: "choose another place with --output",
        errno.EEXIST: "choose another name",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "part of the path is a file; check the path",
        errno.EISDIR: "a folder; name a file",
    }.get(error.errno or 0)
    return f"{where}{reason}" + (f"; {advice}" if advice else "")


def _say(line: str) -> None:
    # File names may hold anything: nothing in them reaches the terminal as a control character.
    click.echo(one_line(line), err=True)


def one_line(text: str) -> str:
    """``text`` as a line for the terminal; of a very long one, what a file may hold, both ends."""
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST // 2]} ... {shown[-1000:]}"


def printable(text: str) -> str:
    """``text`` with control characters and undecodable bytes written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def finish_stdout() -> None:
    """Write out what is buffered while an error can still be reported."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_unwritable_stdout() -> None:
    """Keep the interpreter from failing a second time when it closes a full or closed stdout."""
    try:
        finish_stdout()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
