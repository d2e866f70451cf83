"""qmdd zoo, and names of built-in checkpoints where a file is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qmdd.models.zoo import builtin_checkpoints

NAMES = [path.stem for path in builtin_checkpoints()]


def test_the_list(invoke) -> None:
    result = invoke("zoo")
    assert result.exit_code == 0, result.stderr
    listed = [line.split()[0] for line in result.stdout.splitlines()[2:] if line.strip()]
    assert listed == NAMES


def test_the_list_as_data(invoke) -> None:
    rows = json.loads(invoke("zoo", "--json").stdout)
    assert [row["name"] for row in rows] == NAMES
    one = json.loads(invoke("zoo", NAMES[0], "--json").stdout)
    assert one == rows[0]


def test_a_card(invoke) -> None:
    result = invoke("zoo", NAMES[0])
    assert result.exit_code == 0
    assert result.stdout == builtin_checkpoints()[0].with_suffix(".md").read_text(encoding="utf-8")


def test_an_unknown_name(invoke) -> None:
    result = invoke("zoo", "nothing")
    assert result.exit_code == 1
    assert NAMES[0] in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_it_needs_no_library(process) -> None:
    """Neither torch nor what reads tensors: the list is quick, and works on a device."""
    heavy = ("torch", "numpy", "onnx", "onnxruntime", "safetensors", "sklearn", "PIL")
    code = f"import sys\nfor name in {heavy!r}: sys.modules[name] = None"
    for args in ((), (NAMES[0],), ("--json",)):
        done = process("zoo", *args, code=code)
        assert done.returncode == 0, done.stderr
        assert NAMES[0] in done.stdout


@pytest.mark.parametrize("command", ["export", "verify", "stats"])
def test_help_says_that_a_name_will_do(invoke, command: str) -> None:
    assert "--checkpoint FILE|NAME" in invoke(command, "--help").stdout


def test_a_name_stands_for_its_file(invoke, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    counted = json.loads(invoke("stats", "--checkpoint", NAMES[0], "--json").stdout)
    size = builtin_checkpoints()[0].stat().st_size
    assert counted[0]["files"] == {f"{NAMES[0]}.safetensors": size}
    assert counted[0]["bytes"] < size


def test_a_file_of_that_name_wins(invoke, latent: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(latent, NAMES[0])
    counted = json.loads(invoke("stats", "--checkpoint", NAMES[0], "--json").stdout)
    assert counted[0]["files"] == {NAMES[0]: latent.stat().st_size}


def test_export_takes_the_name_too(invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Up to where the work would begin: what is exported is the built-in file."""
    seen = []

    class Stop(Exception):
        pass

    def stop(path: Path) -> None:
        seen.append(path)
        raise Stop

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qmdd.exporter.source.source_from_checkpoint", stop)
    invoke("export", "--checkpoint", NAMES[0])
    assert seen == [builtin_checkpoints()[0]]
