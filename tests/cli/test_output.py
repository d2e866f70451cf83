"""What is printed: results on stdout, nothing else there."""

from __future__ import annotations

import json
import math
import sys

import pytest

from qmdd.cli.output import (
    json_array,
    print_json,
    print_line,
    print_parity,
    print_table,
    progress,
    stdout_for_results,
)

TIER = {
    "tier": "strict",
    "images": 3,
    "codes_compared": 12345678,
    "wrong_codes": 2,
    "max_abs_logit_diff": 9.5e-7,
    "flipped_verdicts": 0,
    "layers": [{"layer": "stages.0.0.conv1", "codes": 12345678, "wrong": 2}],
}


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [math.inf, 1.5, (2, None)], 3: "\udcff"})
    out = capsys.readouterr().out
    strict = json.loads(out, parse_constant=pytest.fail)
    assert strict == {"a": None, "b": [None, 1.5, [2, None]], "3": "\udcff"}
    out.encode("ascii")


def test_table_cuts_nothing_off_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "stages.3.2.conv2/" + "x" * 90
    print_table(("layer", "codes"), [(name, "1,000"), ("[red]x[/red]\x1b", 7)])
    out = capsys.readouterr().out
    assert name in out
    assert "[red]x[/red]\\x1b" in out


def test_parity_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_parity([TIER, {**TIER, "tier": "deployed"}], layers=True)
    out = capsys.readouterr().out
    assert "12,345,678" in out
    assert "9.5e-07" in out
    assert "wrong, deployed" in out
    assert out.count("stages.0.0.conv1") == 1


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\nb")
    assert capsys.readouterr().out == "a\\nb\n"


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("working", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_leaves_stdout_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress() as report:
        report("stage [1] of 2", 1, 2)
        print("result")  # noqa: T201
    out, err = capsys.readouterr()
    assert out == "result\n"
    assert "stage [1] of 2" in err


def test_progress_whose_end_nobody_knows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress() as report:
        report("detecting", 12, 0)
    assert "12/?" in capsys.readouterr().err


def test_an_array_is_closed_however_its_block_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with json_array():
        pass
    assert json.loads(capsys.readouterr().out) == []

    def interrupted() -> None:
        with json_array() as add:
            add({"a": math.nan})
            add([1, "two"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = capsys.readouterr().out
    assert json.loads(text) == [{"a": None}, [1, "two"]]
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


def test_libraries_print_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with stdout_for_results():
        print("chatter")  # noqa: T201
    assert capsys.readouterr() == ("", "chatter\n")
