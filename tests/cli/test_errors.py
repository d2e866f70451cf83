"""One line for every failure, whatever it is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import click
import pytest

from qmdd.cli import errors
from qmdd.cli.errors import CommandError, State, explain, message_of, printable
from qmdd.exporter.errors import ExportError, ParityError
from qmdd.models.errors import CheckpointError
from qmdd.runtime.errors import BundleError, DataError


def system(number: int, name: str | None = "place/file") -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CommandError("a: b; do c"), "a: b; do c"),
        (CheckpointError("x: pickled"), "x: pickled"),
        (DataError("no such folder"), "no such folder"),
        (ExportError("no target"), "no target"),
        (ParityError("two\n  lines"), "two lines"),
        (BundleError("changed"), "changed"),
        (system(errno.ENOSPC), "place/file: No space left on device; free some space"),
        (system(errno.EACCES), "place/file: Permission denied; choose a place"),
        (system(errno.EROFS), "Read-only file system; choose another place with --output"),
        (system(errno.ENOENT), "No such file or directory; check the path"),
        (system(errno.EIO, None), "Input/output error"),
        (FileExistsError("b exists"), "b exists"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB"), "not enough memory"),
        (RuntimeError("could not create a primitive"), "not enough memory"),
        (RuntimeError("can't start new thread"), "not enough memory"),
        (RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"), "not enough memory"),
        (ModuleNotFoundError("No module", name="onnx"), "onnx is not installed; run: "),
        (ModuleNotFoundError("No module", name="onnx.helper"), "pip install 'qmdd[export]'"),
        (ModuleNotFoundError("No module", name="qmdd.lost"), "lacks qmdd.lost; install qmdd again"),
        (ImportError("bad ELF header", name="torch"), "torch cannot be loaded: bad ELF header"),
        (click.FileError("f", "gone"), "gone"),
        (ZeroDivisionError("by zero"), "unexpected ZeroDivisionError: by zero; this is a defect"),
        (KeyError(), "unexpected KeyError: no message"),
    ],
)
def test_message(error: BaseException, said: str) -> None:
    text = message_of(error, "export")
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CommandError("no"), 1, "qmdd: error: no"),
        (KeyboardInterrupt(), 130, "qmdd: interrupted"),
        (click.Abort(), 130, "qmdd: interrupted"),
        (SystemExit(1), 1, ""),
        (click.UsageError("odd"), 2, "Error: odd"),
    ],
)
def test_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    assert explain(error, State()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip() == line


def test_interruption_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(KeyboardInterrupt(), State(kept=lambda: "nothing was written")) == 130
    assert capsys.readouterr().err == "qmdd: interrupted; nothing was written\n"


def test_full_disk_without_a_name_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    state = State(kept=lambda: "b is as it was")
    assert explain(system(errno.ENOSPC, None), state) == 1
    assert capsys.readouterr().err.endswith("; b is as it was\n")


def test_debug_puts_the_traceback_before_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(ValueError("x"), State(debug=True)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "ValueError: x" in lines
    assert lines[-1].startswith("qmdd: error: unexpected ValueError")


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    explain(CommandError("\x1b[2Jevil\udcff.png"), State())
    assert capsys.readouterr().err == "qmdd: error: \\x1b[2Jevil\\udcff.png\n"
    assert printable("größe 図.png") == "größe 図.png"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_interpreter_ends_shows_no_traceback(process, number: int) -> None:
    code = f"import atexit, os; atexit.register(lambda: os.kill(os.getpid(), {int(number)}))"
    done = process("--version", code=code)
    assert done.stdout.startswith("qmdd ")
    assert (done.returncode, done.stderr) == (-number, "")


def test_an_interruption_that_a_library_turned_into_its_own_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(errors, "_came", [])
    for number, code, said in ((signal.SIGINT, 130, "interrupted"), (15, 143, "terminated")):
        with pytest.raises(KeyboardInterrupt):
            errors._interrupt(number, None)
        assert explain(ImportError("numpy: failed to load", name="numpy"), State()) == code
        assert capsys.readouterr().err == f"qmdd: {said}\n"


def test_a_signal_while_the_command_line_is_imported_shows_no_traceback() -> None:
    code = (
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name == 'qmdd.cli.main': os.kill(os.getpid(), 2)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from qmdd.cli.start import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_line_that_a_file_made_endless_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """What happened stands at its beginning, what to do at its end."""
    explain(CommandError(f"what is {'x' * (1 << 20)}; do this"), State())
    said = capsys.readouterr().err
    assert said.startswith("qmdd: error: what is x")
    assert said.endswith("x; do this\n")
    assert len(said) < 6000
    explain(CommandError("x" * 4200), State())  # a long path is shown whole
    assert "x" * 4200 in capsys.readouterr().err


def test_missing_library_names_the_extra_of_the_command(process, tmp_path, image_folder) -> None:
    code = "import sys\nsys.modules['torch'] = None"
    done = process("freeze", "x.safetensors", "-o", tmp_path / "y", code=code)
    assert done.returncode == 1
    assert done.stderr == ("qmdd: error: torch is not installed; run: pip install 'qmdd[train]'\n")
    done = process("train", "--data", image_folder, code=code)
    assert "pip install 'qmdd[train]'" in done.stderr
    done = process("export", code=code)
    assert "pip install 'qmdd[export]'" in done.stderr
