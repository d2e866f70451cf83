"""``qmdd verify --golden``: its words, its exit codes, and when it is what is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmdd.runtime.parity import LayerResult, TierResult, VerifyResult

NO_TORCH = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None"


class Check:
    """Stands in for the comparison: records what it was asked, gives what it is told."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.wrong = 0

    def __call__(self, bundle: Path, **options: Any) -> VerifyResult:
        self.asked = {"bundle": bundle, **options}
        options["report"]("golden", 1, 2)
        layers = [LayerResult("stages.0.0.conv2", 1000, self.wrong)]
        tiers = [TierResult(tier, 2, 1e-6, 0, layers) for tier in options["tiers"]]
        return VerifyResult(bundle, "resnet23", 2, "onnx", 1, 2.5, tiers, "golden", ["a note"])


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    fake = Check()
    monkeypatch.setattr("qmdd.runtime.golden_check.check_golden", fake)
    return fake


def test_golden_is_compared_and_reported(invoke: Callable[..., Any], check: Check) -> None:
    result = invoke(
        *("verify", "bundle", "--golden", "--tier", "deployed", "--layers"),
        *("--threads", 2, "--runtime", "native", "--code-budget", 0.01),
    )
    assert result.exit_code == 0, result.stderr
    asked = {name: value for name, value in check.asked.items() if not callable(value)}
    assert asked == {
        "bundle": Path("bundle"), "tiers": ("deployed",), "threads": 2, "runtime": "native",
        "code_budget": 0.01,
    }  # fmt: skip
    assert "stages.0.0.conv2" in result.stdout
    assert "note: a note" in result.stdout
    assert "verified against its golden results in 2.5 s: bundle" in result.stdout


def test_golden_as_json_and_its_failure(invoke: Callable[..., Any], check: Check) -> None:
    check.wrong = 3
    result = invoke("verify", "bundle", "--golden", "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert (data["against"], data["passed"], data["notes"]) == ("golden", False, ["a note"])
    assert [tier["wrong_codes"] for tier in data["parity"]] == [3, 3]
    assert "6 of 2,000 codes wrong" in result.stderr
    assert "do not ship this bundle" in result.stderr


@pytest.mark.parametrize(
    "source", [("--checkpoint", "resnet23-w2a2"), ("--module", "a:b"), ("--images", "photos")]
)
def test_golden_excludes_a_source(
    invoke: Callable[..., Any], check: Check, source: tuple[str, str]
) -> None:
    result = invoke("verify", "bundle", "--golden", *source)
    assert result.exit_code == 2
    assert "--golden excludes --checkpoint, --module and --images" in result.stderr
    assert not check.asked


def test_a_budget_is_for_golden_results(invoke: Callable[..., Any], check: Check) -> None:
    result = invoke("verify", "bundle", "--images", "photos", "--code-budget", 0.1)
    assert result.exit_code == 2
    assert "--code-budget is for --golden" in result.stderr
    for wrong in ("nan", "1.5", "-0.1"):
        result = invoke("verify", "bundle", "--golden", "--code-budget", wrong)
        assert result.exit_code == 2
    assert not check.asked


def test_without_torch_golden_is_what_is_done_and_it_says_so(
    invoke: Callable[..., Any], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmdd.cli.verify.find_spec", lambda _name: None)
    result = invoke("verify", "bundle", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["notes"] == [
        "torch is not installed: the bundle's golden results took the checkpoint's place",
        "a note",
    ]
    assert check.asked["tiers"] == ("strict", "deployed")


def test_a_source_that_is_named_is_not_passed_over(process: Callable[..., Any]) -> None:
    """Where torch is missing it is what must be installed: golden results are not the same."""
    done = process("verify", "absent", "--module", "a:b", code=NO_TORCH)
    assert done.returncode == 1
    assert done.stderr == "qmdd: error: torch is not installed; run: pip install 'qmdd[export]'\n"


def test_a_library_that_is_missing_is_the_runtimes(process: Callable[..., Any]) -> None:
    """The device needs that extra, not the exporter's."""
    code = f"{NO_TORCH}; sys.modules['numpy'] = None"
    done = process("verify", "absent", code=code)
    assert done.stderr == "qmdd: error: numpy is not installed; run: pip install 'qmdd[runtime]'\n"


def test_no_bundle_there_is_one_line(process: Callable[..., Any], tmp_path: Path) -> None:
    done = process("verify", tmp_path / "absent", code=NO_TORCH)
    assert done.returncode == 1
    assert done.stderr.startswith(f"qmdd: error: {tmp_path / 'absent'}: no such bundle")
    assert done.stderr.count("\n") == 1
