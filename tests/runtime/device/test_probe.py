"""The facts of this machine: what they are called, that nothing raises, that one file is enough."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from qmdd.runtime import machine
from qmdd.runtime.device import probe

SOURCE = Path(probe.__file__).read_text(encoding="utf-8")
SECTIONS = {
    *("form", "python", "system", "processor", "memory", "disk", "packages", "onnxruntime"),
    *("tensorrt", "cuda", "jetson", "power", "libraries", "clock", "user", "tools", "failed"),
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return probe.collect(str(tmp_path_factory.mktemp("disk") / "not" / "there" / "yet"))


def test_this_machine(facts: dict) -> None:
    assert set(facts) == SECTIONS
    assert facts["failed"] == {}
    assert facts["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["python"]["venv"] is True
    assert facts["packages"]["numpy"] == numpy.__version__
    assert facts["onnxruntime"]["version"] == facts["packages"]["onnxruntime"]
    assert "CPUExecutionProvider" in facts["onnxruntime"]["providers"]
    assert facts["libraries"]["missing"] == {}
    assert 0 < facts["memory"]["available"] <= facts["memory"]["total"]
    assert facts["processor"]["cores"] == machine.usable_cores()
    assert facts["processor"]["name"]
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_disk_of_a_folder_that_is_still_to_be_made(facts: dict, tmp_path: Path) -> None:
    assert Path(facts["disk"]["folder"]).name.startswith("disk")
    assert facts["disk"]["writable"] is True
    assert facts["disk"]["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)


def test_the_instruction_sets_are_those_of_the_bench() -> None:
    assert set(probe.INSTRUCTIONS) == set(machine.INSTRUCTIONS)


def test_the_source_is_python_3_8_and_the_standard_library_alone() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").split(".")[0])
    assert imported <= sys.stdlib_module_names


def _bare(python: str, *flags: str, folder: Path, environment: dict | None = None) -> dict:
    """What the source tells on a device that has nothing but ``python``."""
    done = subprocess.run(
        [python, *flags, "-", str(folder)],
        input=SOURCE.encode(),
        capture_output=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    told = json.loads(done.stdout)
    assert set(told) == SECTIONS
    assert told["failed"] == {}
    return told


def test_the_bare_source_on_a_python_without_packages(tmp_path: Path) -> None:
    """And with no program on the path, not even ``ldd``."""
    told = _bare(sys.executable, "-I", "-S", folder=tmp_path, environment={"PATH": ""})
    assert told["packages"] == {}
    assert told["disk"]["folder"] == str(tmp_path)


def test_the_bare_source_on_the_oldest_python(tmp_path: Path) -> None:
    places = [shutil.which("python3.8"), *Path.home().glob(".pyenv/versions/3.8.*/bin/python3")]
    for place in map(str, filter(None, places)):
        # What pyenv puts on the path may lead nowhere.
        if not subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode:
            assert _bare(place, folder=tmp_path)["python"]["version"].startswith("3.8.")
            return
    pytest.skip("no Python 3.8 here; install python3.8 to run the source on it")


def test_a_folder_here_is_no_package(tmp_path: Path) -> None:
    """Files of the user's must not be imported, nor stand in for what is installed."""
    for name in ("onnxruntime", "tensorrt", "json", "venv"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)\n")
    told = _bare(sys.executable, "-I", folder=tmp_path)
    assert told["onnxruntime"]["version"] == probe.collect()["onnxruntime"]["version"]
    assert "python" not in told["tensorrt"]


def test_a_broken_installation_is_told_not_met(tmp_path: Path, monkeypatch) -> None:
    """One that raises, one that ends the process, one that hangs."""
    for name, code in (
        ("onnxruntime", "raise ImportError('libfoo.so.3: cannot open shared object file')"),
        ("tensorrt", "import os; os.abort()"),
        ("hangs", "import time; time.sleep(60)"),
    ):
        (tmp_path / f"{name}.py").write_text(code + "\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(probe, "SECONDS_TO_IMPORT", 5.0)
    found = probe._imported(sys.executable, "onnxruntime")
    assert found == {"error": "ImportError: libfoo.so.3: cannot open shared object file"}
    assert "crashes" in probe._imported(sys.executable, "tensorrt")["error"]
    monkeypatch.setattr(probe, "SECONDS_TO_IMPORT", 0.3)
    assert "does not answer" in probe._imported(sys.executable, "hangs")["error"]


def test_what_is_not_installed_is_no_error() -> None:
    assert probe._imported(sys.executable, "not_there_at_all") == {}


def test_a_program_that_talks_without_end_is_cut_off() -> None:
    code, text = probe._run([sys.executable, "-c", "while True: print('x' * 1000)"], 20)
    assert len(text) == probe.MOST_BYTES
    assert code != 0


def test_a_section_that_fails_is_named(monkeypatch) -> None:
    def broken() -> dict:
        raise ValueError("odd")

    for name in ("_memory", "_packages"):
        monkeypatch.setattr(probe, name, broken)
    for name in ("_imported", "_child"):
        monkeypatch.setattr(probe, name, lambda *_arguments: {})
    found = probe.collect()
    assert found["failed"] == {"memory": "ValueError: odd", "packages": "ValueError: odd"}
    assert found["memory"] == {}


def test_what_a_jetson_says_of_itself(monkeypatch) -> None:
    """Of its release file, its package, its power mode: as NVIDIA's programs print them."""
    files = {
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
        "/etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nX\n< POWER_MODEL ID=1 NAME=25W >\n",
        "/var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
    }
    told = {"dpkg-query": (0, "6.2+b77"), "nvpmodel": (0, "NV Power Mode: 15W\n0\n")}
    monkeypatch.setattr(probe, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(probe, "_run", lambda command, *_: told.get(command[0], (None, "")))
    found = probe._jetson()
    assert (found["l4t"], found["jetpack"]) == ("36.4.3", "6.2+b77")
    power = probe._power()
    assert (power["mode"], power["number"]) == ("15W", 0)
    assert power["modes"] == {"0": "15W", "1": "25W"}
    told["nvpmodel"] = (1, "")  # where only root may ask
    power = probe._power()
    assert (power["mode"], power["number"]) == ("25W", 1)
