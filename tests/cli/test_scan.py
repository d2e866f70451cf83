"""``qmdd scan``: what it asks of the runtime, what it prints and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from qmdd.cli import options
from qmdd.cli import scan as cli
from qmdd.runtime.detector import EVERY
from qmdd.runtime.errors import ScanError
from qmdd.runtime.inputs import Input
from qmdd.runtime.scan import scan as runtime
from qmdd.runtime.scan.table import MAX_PART


class Scanner:
    """Stands in for the runtime room; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.failed = 0

    def scan(
        self, bundle: Path, inputs: Iterable[Input], results: Path, **options: Any
    ) -> runtime.ScanResult:
        options.pop("report")("scanning", 1, 2)
        self.asked = {"bundle": bundle, "inputs": list(inputs), "results": results, **options}
        print("a library's chatter")  # noqa: T201
        return runtime.ScanResult(results, 1200, self.failed, 400, 3, 1, 1, 2.5)


@pytest.fixture
def scanner(monkeypatch: pytest.MonkeyPatch) -> Scanner:
    fake = Scanner()
    monkeypatch.setattr(runtime, "scan", fake.scan)
    return fake


def test_defaults_are_the_runtimes() -> None:
    assert (cli.PART, options.EVERY) == (runtime.PART, EVERY)
    (part,) = (p for p in cli.command.params if p.name == "part")
    assert part.type.max == MAX_PART


def test_here(invoke, scanner: Scanner) -> None:
    result = invoke("scan", "bundle", "a.png", "b.png", "-o", "results")
    assert result.exit_code == 0
    assert scanner.asked == {
        "bundle": Path("bundle"),
        "inputs": [Input(Path("a.png")), Input(Path("b.png"))],
        "results": Path("results"),
        "part": 500,
        "threshold": None,
        "every": 10,
        "runtime": None,
        "threads": None,
        "ray": None,
        "force": False,
    }
    assert result.stdout.splitlines() == [
        "1,200 files in 3 parts, 1 of them kept",
        "1 parts were damaged and were done again",
        "1,200 scored, 400 of them fake; 0 unusable",
        "results: results",
    ]


@pytest.mark.parametrize(
    ("args", "ray"),
    [
        (["--ray"], runtime.OnRay()),
        (["--ray", "--workers=3"], runtime.OnRay(None, 3)),
        (["--address=auto"], runtime.OnRay("auto")),
    ],
)
def test_on_ray(invoke, scanner: Scanner, args: list[str], ray: runtime.OnRay) -> None:
    options = ["--part=7", "--threshold=0.3", "--every=2", "--runtime=native", "--threads=2"]
    result = invoke("scan", "bundle", "a.png", "-o", "r", "--force", *options, *args)
    assert result.exit_code == 0
    held = {key: scanner.asked[key] for key in ("part", "threshold", "every", "runtime", "threads")}
    assert list(held.values()) == [7, 0.3, 2, "native", 2]
    assert scanner.asked["ray"] == ray
    assert scanner.asked["force"] is True


def test_json_and_files_that_cannot_be_used(invoke, scanner: Scanner) -> None:
    scanner.failed = 2
    result = invoke("scan", "bundle", "a.png", "-o", "results", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["files"], found["failed"], found["results"]) == (1200, 2, "results")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["bundle", "a.png"], "Missing option '-o'"),
        (["bundle", "-o", "r"], "Missing argument 'PATH...'"),
        (["bundle", "a.png", "-o", "r", "-0"], "--null is for a list of paths"),
        (["bundle", "a.png", "-o", "r", "--workers=2"], "--workers is for Ray"),
        (["bundle", "a.png", "-o", "r", "--part=0"], "Invalid value for '--part'"),
        (["bundle", "/no/*.nothing/**", "-o", "r", "--threshold=2"], "Invalid value"),
    ],
)
def test_wrong_usage(invoke, scanner: Scanner, args: list[str], said: str) -> None:
    result = invoke("scan", *args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not scanner.asked


def test_an_empty_folder(invoke, scanner: Scanner, tmp_path: Path) -> None:
    result = invoke("scan", "bundle", tmp_path, "-o", tmp_path / "results")
    assert result.exit_code == 2
    assert "no image or video found" in result.stderr


def test_a_failure_is_one_line(invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ScanError("results: holds a scan of another bundle")

    monkeypatch.setattr(runtime, "scan", fail)
    result = invoke("scan", "bundle", "a.png", "-o", "results")
    assert result.exit_code == 1
    assert result.stderr == "qmdd: error: results: holds a scan of another bundle\n"


def test_without_ray(process, tmp_path: Path) -> None:
    """What to install is said; nothing but that is missing."""
    code = "import sys\nsys.modules['pyarrow'] = None"
    done = process("scan", tmp_path / "absent", "a.png", "-o", tmp_path / "results", code=code)
    assert done.returncode == 1
    assert done.stderr == ("qmdd: error: pyarrow is not installed; run: pip install 'qmdd[scan]'\n")
