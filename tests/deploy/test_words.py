"""What is said to a person: ssh's words, a program's, the device's clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmdd.runtime.deploy.hosts import Host
from qmdd.runtime.deploy.outcome import Outcome, last_words, missed, report_path, write_report
from qmdd.runtime.deploy.ssh_words import explain
from qmdd.runtime.errors import DeployError


@pytest.mark.parametrize(
    ("code", "said", "meaning"),
    [
        (255, "ssh: Could not resolve hostname x: Name or service not known", "no machine has"),
        (255, "ssh: connect to host x port 22: Connection refused", "nothing answers at its ssh"),
        (255, "ssh: connect to host x port 22: No route to host", "cannot be reached"),
        (255, "ssh: connect to host x port 22: Connection timed out", "cannot be reached"),
        (255, "me@x: Permission denied (publickey).", "does not accept any key of yours"),
        (255, "No ED25519 host key is known for x and you have requested strict checking.\n"
         "Host key verification failed.", "host key is not known here"),
        (255, "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@@@\nHost key for x "
         "has changed\nHost key verification failed.", "not the one that is known"),
        (255, "Timeout, server x not responding.", "the connection broke (Timeout, server x"),
        (255, "", "the connection broke (ssh says nothing)"),
        (-9, "", "the connection broke"),
        (127, "bash: line 1: exec: python3: not found", "has no such Python (bash: line 1"),
        (126, "", "has no such Python (exit code 126)"),
        (1, "Traceback\nMemoryError", "the agent ended there (MemoryError)"),
        (1, "  File x\nSyntaxError: invalid syntax", "its Python cannot run this"),
    ],
)  # fmt: skip
def test_ssh_in_other_words(code: int, said: str, meaning: str) -> None:
    words = explain(code, said)
    assert meaning in words
    assert "\n" not in words


def test_a_long_tale_is_cut() -> None:
    assert len(explain(255, "x" * 5000)) < 450


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("a\nERROR: no wheel\nnote: more\n", "no wheel"),
        ("qmdd: error: it failed\n\n", "it failed"),
        ("one\n  two   words \n", "two words"),
        ("", "it says nothing"),
    ],
)
def test_the_line_that_says_why(said: str, line: str) -> None:
    assert last_words(said) == line


def test_reports_have_names_that_are_names() -> None:
    odd = Host("me@box", "../../a b;$(id)/'", 22)
    path = report_path(Path("bundle"), odd)
    assert path.parent == Path("bundle/devices")
    assert set("/;$()' ").isdisjoint(path.name)
    assert path != report_path(Path("bundle"), Host("me@box", "a", 22))


def test_what_a_verification_missed() -> None:
    def tier(**told: object) -> dict[str, object]:
        sound = {
            **{"tier": "strict", "wrong_codes": 0, "codes_compared": 1000, "flipped_verdicts": 0},
            **{"max_abs_logit_diff": 1e-7, "logit_bar": 1e-5, "code_budget": 0.0, "fallbacks": []},
        }
        return {**sound, **told}

    assert missed({"parity": [tier(), tier(tier="deployed", wrong_codes=2)]}) == (
        "deployed: 2 of 1,000 codes wrong"
    )
    assert missed({"parity": [tier(tier="codes", wrong_codes=2, code_budget=0.01)]}) == (
        "nothing was compared"
    )
    assert missed({"parity": [tier(max_abs_logit_diff=0.5, flipped_verdicts=1)]}) == (
        "strict: 1 verdicts flipped, a logit is off by 5.0e-01, the bar is 1e-05"
    )
    assert "no number" in missed({"parity": [tier(max_abs_logit_diff=None)]})


def test_a_verification_that_is_none() -> None:
    """What a device says is whatever it says."""
    odd = [3, {"fallbacks": 1}, {"wrong_codes": "x", "tier": ["a"]}, {"max_abs_logit_diff": 1e400}]
    assert missed({"parity": "all"}) == "nothing was compared"
    assert missed({"parity": odd}).startswith(": a logit is no number")


def test_a_report_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A bundle that somebody else made may lead anywhere."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bundle" / "devices").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeployError, match="leads elsewhere"):
        write_report(tmp_path / "bundle", Outcome(Host("me@box")))
    assert not any((tmp_path / "elsewhere").iterdir())
