"""The group: help that costs nothing, wrong usage, and how a run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmdd.cli.main import SUMMARIES, cli

HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "PIL", "sklearn", "rich", "safetensors")

#: Stands in for the runtime room: one verdict, then ``then``.
FAKE_RUNTIME = """
import sys, types
fake = types.ModuleType("qmdd.runtime.detector")
class Detector:
    @classmethod
    def open(cls, path, threads=None, runtime=None):
        return cls()
    def detect(self, files, **options):
        print("ready", file=sys.stderr, flush=True)
        {then}
        return iter(())
fake.Detector = Detector
sys.modules[fake.__name__] = fake
"""


def modules_after(process, *args: str) -> list[str]:
    code = (
        "import atexit, json, sys\n"
        f"names = {HEAVY!r}\n"
        "atexit.register(lambda: print(json.dumps([n for n in names if n in sys.modules]),"
        " file=sys.stderr))"
    )
    done = process(*args, code=code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["detect", "--help"]])
def test_help_loads_no_library(process, args: list[str]) -> None:
    assert modules_after(process, *args) == []


@pytest.mark.parametrize(
    "name",
    [
        "export",
        "build",
        "inspect",
        "verify",
        "bench",
        "compare",
        "demo",
        "eval",
        "scan",
        "train",
        "calibrate",
        "sensitivity",
        "freeze",
        "doctor",
        "estimate",
        "stats",
        "targets",
        "zoo",
        "import",
    ],
)
def test_help_of_a_command_loads_no_library(process, name: str) -> None:
    assert modules_after(process, name, "--help") == []


def test_help_lists_every_command(invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name, summary in SUMMARIES.items():
        assert f"{name}" in result.stdout
        assert summary in result.stdout


@pytest.mark.parametrize("name", list(SUMMARIES))
def test_every_listed_command_is_there_with_debug(invoke, name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: qmdd {name}" in result.stdout
    assert "--debug" in result.stdout


def test_summaries_are_not_imports() -> None:
    assert cli.list_commands(None) == list(SUMMARIES)


def test_version(invoke) -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("qmdd ")


def test_module_runs_as_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qmdd.cli.main", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("qmdd ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["detct"], "did you mean 'detect'?"),
        (["fly"], "No such command 'fly'"),
        (["--bogus"], "No such option"),
        (["detect"], "Missing argument"),
        (["train"], "Missing option '--data'"),
        (["export", "--bits", "5"], "'5' is not one of '1', '2', '3', '4', '8', '32'"),
        (["export", "--arch", "vgg"], "'vgg' is not one of"),
        (["export", "--opset", "x"], "'x' is not a valid integer"),
        (["verify", "b", "--tier", "loose"], "'loose' is not one of"),
        (["detect", "b", "x.png", "--threshold", "1.5"], "1.5 is not in the range"),
        (["detect", "b", "x.png", "--threshold", "nan"], "not a number"),
        (["detect", "b", "x.png", "--json", "--csv"], "exclude each other"),
        (["train", "--data", "d", "--recipe", "r", "--bits", "2"], "leave --arch and --bits out"),
        (["calibrate", "c", "--data", "d"], "Missing option '-o'"),
        (["calibrate", "c", "--data", "d", "-o", "o", "--bits", "32"], "'32' is not one of"),
        (["calibrate", "c", "--data", "d", "-o", "o", "--method", "max"], "'max' is not one of"),
        (["calibrate", "c", "--data", "d", "-o", "o", "--percentile", "9"], "9.0 is not in the"),
        (["calibrate", "c", "--data", "d", "-o", "o", "--percentile", "99"], "needs --method perc"),
        (["calibrate", "c", "--data", "d", "-o", "o", "--latent", "o"], "name the same file"),
        (["calibrate", "c", "--data", "d", "-o", "o", "--images", "1"], "1 is not in the range"),
        (["sensitivity", "c"], "Missing option '--data'"),
        (["sensitivity", "c", "--data", "d", "--widths", "2,x"], "not a list such as 2,4,8"),
        (["sensitivity", "c", "--data", "d", "--widths", "1,2"], "1 is not one of 2, 3, 4, 8"),
        (["sensitivity", "c", "--data", "d", "--plot", "f.pdf"], "does not end in .svg or .png"),
        (["sensitivity", "c", "--data", "d", "--budget", "0"], "0 is not in the range"),
        (["freeze", "latent.safetensors"], "Missing option '-o'"),
    ],
)
def test_wrong_usage(invoke, args: list[str], said: str) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback(invoke, tmp_path: Path, before: bool) -> None:
    args = ["detect", tmp_path / "none", "x.png"]
    plain = invoke(*args)
    result = invoke("--debug", *args) if before else invoke(*args, "--debug")
    assert plain.exit_code == result.exit_code == 1
    assert "Traceback" not in plain.stderr
    assert len(plain.stderr.splitlines()) == 1
    assert plain.stderr.startswith("qmdd: error: ")
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == plain.stderr.strip()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_end_in_one_line(number: int, code: int, word: str) -> None:
    script = FAKE_RUNTIME.format(then="import time; time.sleep(40)")
    script += "from qmdd.cli.main import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", script, "detect", "bundle", "x.png"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert running.stderr.readline() == "ready\n"
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == code
    assert err.strip() == f"qmdd: {word}; done and printed: 0 files"


@pytest.mark.parametrize("args", [["--help"], ["detect", "bundle", "x.png", "--json"]])
def test_closed_pipe_ends_quietly(process, args: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = process(*args, code=FAKE_RUNTIME.format(then=""), stdout=write)
    os.close(write)
    assert done.stderr.replace("ready\n", "") == ""
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("args", [["--help"], ["detect", "bundle", "x.png", "--json"]])
def test_full_disk_behind_stdout(process, args: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = process(*args, code=FAKE_RUNTIME.format(then=""), stdout=full.fileno())
    assert done.returncode == 1
    said = done.stderr.replace("ready\n", "").splitlines()
    assert len(said) == 1
    assert said[0].startswith("qmdd: error: No space left on device")


def test_choices_are_those_of_the_models() -> None:
    from qmdd.calibration.plot import SUFFIXES
    from qmdd.calibration.ranges import METHODS as FOUND
    from qmdd.cli.calibration_options import METHODS
    from qmdd.cli.options import ARCHITECTURES, DEFAULT_ARCH, DEFAULT_BITS, WIDTHS
    from qmdd.cli.sensitivity import FIGURES
    from qmdd.models.config import ARCHITECTURES as BUILT
    from qmdd.models.config import DetectorConfig
    from qmdd.models.quantizers import FULL_PRECISION, QUANTIZED_BITS

    assert METHODS == FOUND
    assert FIGURES == SUFFIXES
    assert ARCHITECTURES == BUILT
    assert tuple(map(int, WIDTHS)) == (*QUANTIZED_BITS, FULL_PRECISION)
    assert (DetectorConfig().arch, DetectorConfig().bits) == (DEFAULT_ARCH, DEFAULT_BITS)


def test_every_command_names_an_extra_that_exists() -> None:
    """What an error tells people to install must be in the project's metadata."""
    from importlib import metadata

    from qmdd.cli.errors import EXTRAS

    assert EXTRAS.keys() == SUMMARIES.keys()
    assert set(EXTRAS.values()) <= set(metadata.metadata("qmdd").get_all("Provides-Extra") or [])
