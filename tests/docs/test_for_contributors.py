"""What those who carry on are given is whole: pages, templates, hooks, decisions, make help."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ..site.blocks import ROOT
from ..site.usage import commands_in, complaint

TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))


def test_every_page_has_its_place_in_the_navigation() -> None:
    """The site's build says the same, later."""
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        if name != "index" and path not in DECISIONS:
            assert re.search(rf"^{name}$", index, re.M), f"docs/index.md lacks {name}"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_templates_ask_for_something(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    fields = [field["id"] for field in form["body"]]
    assert len(fields) == len(set(fields)) > 1
    for field in form["body"]:
        assert field["type"] in ("input", "textarea")
        assert field["attributes"]["label"]
    wanted = [field for field in form["body"] if field.get("validations", {}).get("required")]
    assert wanted


def test_commands_that_templates_ask_for_exist() -> None:
    texts = [path.read_text(encoding="utf-8") for path in TEMPLATES]
    asked = [command for text in texts for command in re.findall(r"`(qmdd [^`]+)`", text)]
    assert asked
    for command in asked:
        assert [complaint(words) for words in commands_in(command)] == [""], command


def test_hooks_call_what_is_there() -> None:
    held = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in held["repos"] for hook in repo["hooks"]]
    assert all(repo["repo"] == "local" for repo in held["repos"])  # nothing is fetched
    for hook in hooks:
        program, *rest = hook["entry"].split()
        assert program in (".venv/bin/ruff", ".venv/bin/python")
        assert all((ROOT / word).is_file() for word in rest if word.startswith("tests/"))


def test_the_gate_is_a_workflow_of_commands_that_exist() -> None:
    held = yaml.safe_load((ROOT / "examples/parity-gate.yml").read_text(encoding="utf-8"))
    assert {"name", True, "jobs"} <= set(held)  # YAML 1.1 reads the key "on" as true
    runs = [step["run"] for job in held["jobs"].values() for step in job["steps"] if "run" in step]
    own = [run for run in runs if run.startswith("qmdd ")]
    assert len(own) == 2
    assert [complaint(words) for run in own for words in commands_in(run)] == ["", "", ""]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_what_was_asked_decided_and_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(path.name[:4])}. ")
    for part in ("Asked", "Decided", "Why"):
        assert f"**{part}**:" in text


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony
    told = subprocess.check_output(["make", "-s", "help"], cwd=ROOT, text=True)
    listed = [line.split()[1] for line in told.splitlines()]
    assert sorted(listed) == sorted(phony[1].split())


def test_the_changelog_begins_with_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.M)[0] == "Unreleased"
