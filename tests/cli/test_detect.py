"""``qmdd detect``: what it prints and how it ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmdd.runtime.detector import Verdict

FAKE, REAL = 0.97312, 0.0004


class Detector:
    """Stands in for the runtime's: every name with ``fake`` in it is fake, ``bad`` is unusable."""

    opened: tuple[Path, int | None] | None = None
    threshold: float | None = None

    @classmethod
    def open(
        cls, path: Path, *, threads: int | None = None, runtime: str | None = None
    ) -> Detector:
        Detector.opened = (path, threads)
        return cls()

    def detect(self, paths: list[Path], *, threshold: float | None = None) -> Iterator[Verdict]:
        Detector.threshold = threshold
        for path in paths:
            if "bad" in path.name:
                yield Verdict(path, error=f"{path}: damaged image")
            elif "fake" in str(path):
                yield Verdict(path, FAKE, "fake")
            else:
                yield Verdict(path, REAL, "real")


@pytest.fixture
def detect(monkeypatch: pytest.MonkeyPatch, invoke):
    monkeypatch.setattr("qmdd.runtime.detector.Detector", Detector)
    return lambda *args: invoke("detect", "bundle", *args)


def test_lines(detect) -> None:
    result = detect("a.png", "fake.jpg")
    assert result.exit_code == 0
    assert result.stdout == "0.0004  real  a.png\n0.9731  fake  fake.jpg\n"
    assert result.stderr == ""


def test_folder(detect, image_folder: Path) -> None:
    lines = detect(image_folder).stdout.splitlines()
    assert len(lines) == 12
    assert sum("  fake  " in line for line in lines) == 6


def test_one_bad_image_fails_but_the_others_are_scored(detect) -> None:
    result = detect("bad.png", "a.png")
    assert result.exit_code == 1
    assert result.stdout == "0.0004  real  a.png\n"
    assert result.stderr == "qmdd: error: bad.png: damaged image\n"


def test_json(detect) -> None:
    result = detect("fake.png", "bad.png", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"path": "fake.png", "score": FAKE, "verdict": "fake"},
        {"path": "bad.png", "error": "bad.png: damaged image"},
    ]
    assert result.stderr == ""


def test_csv(detect) -> None:
    result = detect("a, b\n.png", "bad.png", "--csv")
    assert result.exit_code == 1
    rows = list(csv.DictReader(result.stdout.splitlines(keepends=True)))
    assert rows == [
        {"path": "a, b\n.png", "score": str(REAL), "verdict": "real", "error": ""},
        {"path": "bad.png", "score": "", "verdict": "", "error": "bad.png: damaged image"},
    ]


def test_names_that_are_no_text(detect) -> None:
    name = b"\xff\x1b.png".decode("utf-8", "surrogateescape")
    assert detect(name).stdout == "0.0004  real  \\udcff\\x1b.png\n"
    assert json.loads(detect(name, "--json").stdout)[0]["path"] == name
    assert b"\xff\x1b.png" in detect(name, "--csv").stdout_bytes


def test_options(detect) -> None:
    assert detect("a.png", "--threshold", "0.9", "--threads", "2").exit_code == 0
    assert Detector.opened == (Path("bundle"), 2)
    assert Detector.threshold == 0.9
    assert detect("a.png").exit_code == 0
    assert Detector.opened == (Path("bundle"), None)
    assert Detector.threshold is None


def test_no_image_at_all(detect, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    result = detect(tmp_path)
    assert result.exit_code == 2
    assert "no image found" in result.stderr


def test_no_bundle(invoke, tmp_path: Path) -> None:
    result = invoke("detect", tmp_path / "none", "a.png")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("qmdd: error: ")
    assert len(result.stderr.splitlines()) == 1
