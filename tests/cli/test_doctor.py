"""``qmdd doctor``: the table, JSON, exit codes, and that it needs nothing but click and rich."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmdd.cli import doctor
from qmdd.exporter.targets import TARGETS

#: Enough of a machine: what is missing is unknown, or a fault.
FACTS = {
    "python": {"version": "3.11.9", "executable": "/usr/bin/python3"},
    "packages": {"qmdd": "0.1.0", "numpy": "2.4.6", "pillow": "13.0.0", "safetensors": "0.8.0"},
    "onnxruntime": {"version": "1.32.0", "providers": ["CPUExecutionProvider"]},
    "clock": {"unix": 1_800_000_000.0},
}


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> dict:
    known = json.loads(json.dumps(FACTS))
    monkeypatch.setattr(doctor, "facts_here", lambda _folder: known)
    return known


def test_this_machine_as_it_is(process) -> None:
    """On a machine that runs these tests nothing is a fault."""
    done = process("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["state"] in ("ok", "note", "warning")
    assert [fit["target"] for fit in found["targets"]] == list(TARGETS)
    assert {"onnx", "cpu"} <= {fit["target"] for fit in found["targets"] if fit["runs"]}
    assert found["facts"]["failed"] == {}


def test_the_table(invoke, facts: dict) -> None:
    result = invoke("doctor")
    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    assert any(row.split()[:3] == ["ok", "Python", "3.11.9,"] for row in rows)
    assert rows[-2] == "runs here: onnx, cpu, canonical"
    assert rows[-1] == "is built here, runs elsewhere: nothing"


def test_a_fault_is_a_failure(invoke, facts: dict) -> None:
    facts["python"]["version"] = "3.9.1"
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "3.9.1, qmdd needs 3.10" in result.stdout
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "fault"


def test_a_target_by_its_short_name(invoke, facts: dict) -> None:
    result = invoke("doctor", "--target", "orin-nano")
    assert result.exit_code == 1
    assert "orin-nano@6.2: cannot be completed here" in " ".join(result.stdout.split())


def test_a_refused_target_says_why(invoke, facts: dict) -> None:
    result = invoke("doctor", "--target", "jetson-nano")
    assert result.exit_code == 1
    assert "INT8" in result.stdout


def test_a_wrong_target_is_wrong_usage(invoke, facts: dict) -> None:
    result = invoke("doctor", "--target", "orin-nanu")
    assert result.exit_code == 2
    assert "did you mean orin-nano" in result.stderr


def test_what_is_no_bundle(invoke, facts: dict, tmp_path: Path) -> None:
    result = invoke("doctor", tmp_path)
    assert result.exit_code == 1
    assert "not a bundle" in result.stderr


def test_facts_of_a_hostile_machine_steer_no_terminal(invoke, facts: dict) -> None:
    facts["python"]["executable"] = "/bin/\x1b[31mred"
    assert "\x1b" not in invoke("doctor").stdout


def test_a_device_without_torch_and_onnx(process) -> None:
    done = process(
        "doctor", "--json", code="import sys; sys.modules['torch'] = sys.modules['onnx'] = None"
    )
    assert done.returncode == 0, done.stderr
