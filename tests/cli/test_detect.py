"""``qmdd detect``: what it prints and how it ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from qmdd.cli import detect as cli
from qmdd.cli import main, options
from qmdd.runtime.detector import BATCH, EVERY, Verdict
from qmdd.runtime.inputs import Input
from qmdd.runtime.verdicts import Clip, FramePlace

FAKE, REAL = 0.97312, 0.0004


class Detector:
    """Stands in for the runtime's: every name with ``fake`` in it is fake, ``bad`` is unusable."""

    opened: tuple[Path, int | None] | None = None
    options: ClassVar[dict[str, Any]] = {}

    @classmethod
    def open(
        cls, path: Path, *, threads: int | None = None, runtime: str | None = None
    ) -> Detector:
        Detector.opened = (path, threads)
        return cls()

    def detect(self, inputs: Iterable[Input], **options: Any) -> Iterator[Verdict]:
        Detector.options = options
        for path, error in inputs:
            if error is not None:
                yield Verdict(path, error=error)
            elif "bad" in path.name:
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
    assert [list(row.values())[:4] for row in rows] == [
        ["a, b\n.png", str(REAL), "real", ""],
        ["bad.png", "", "", "bad.png: damaged image"],
    ]
    assert list(rows[0])[:4] == ["path", "score", "verdict", "error"]
    assert not any(value for row in rows for value in list(row.values())[4:])


def test_json_lines(detect) -> None:
    result = detect("fake.png", "bad.png", "--jsonl")
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"path": "fake.png", "score": FAKE, "verdict": "fake"},
        {"path": "bad.png", "error": "bad.png: damaged image"},
    ]
    assert result.stderr == ""


def test_json_is_laid_out_as_ever(detect) -> None:
    """Printed element by element, it reads as if printed at once."""
    for files in (["a.png"], ["a.png", "fake.png", "bad.png"]):
        text = detect(*files, "--json").stdout
        assert text == json.dumps(json.loads(text), indent=2) + "\n"


VIDEO = [
    Verdict(Path("a.mp4"), 0.9, "fake", frame=FramePlace(0, 0.0)),
    Verdict(Path("a.mp4"), 0.2, "real", frame=FramePlace(1000, None)),
    Verdict(Path("a.mp4"), 0.55, "fake", clip=Clip(2, 1, 1001, 3, "after frame 9 (damaged)")),
]


@pytest.fixture
def detect_video(detect, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Detector, "detect", lambda *_, **__: iter(VIDEO))
    return detect


def test_video_lines(detect_video) -> None:
    """What was passed over is named; the video has a verdict all the same."""
    result = detect_video("a.mp4")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "0.9000  fake  a.mp4, frame 0 at 0.000 s",
        "0.2000  real  a.mp4, frame 1,000",
        "0.5500  fake  a.mp4 (1 of 2 frames fake)",
    ]
    assert result.stderr == (
        "qmdd: warning: a.mp4: 3 broken places passed over: after frame 9 (damaged)\n"
    )


def test_video_as_data(detect_video) -> None:
    first, second, clip = json.loads(detect_video("a.mp4", "--json").stdout)
    assert first == {
        "path": "a.mp4",
        "frame": 0,
        "seconds": 0.0,
        "score": 0.9,
        "verdict": "fake",
    }
    assert second["seconds"] is None
    assert clip == {
        "path": "a.mp4",
        "score": 0.55,
        "verdict": "fake",
        "frames": 2,
        "fake_frames": 1,
        "decoded": 1001,
        "broken": 3,
        "first_broken": "after frame 9 (damaged)",
    }
    rows = list(csv.DictReader(detect_video("a.mp4", "--csv").stdout.splitlines()))
    assert rows[0]["frame"] == "0"
    assert rows[2]["fake_frames"] == "1"


def test_patterns_and_lists(detect, image_folder: Path) -> None:
    lines = detect(f"{image_folder}/**/1_fake/*.png").stdout.splitlines()
    assert len(lines) == 6
    lines = detect(f"{image_folder}/*/0_real", "x.png").stdout.splitlines()
    assert len(lines) == 4
    result = detect(f"{image_folder}/*.none", "x.png")
    assert result.exit_code == 1
    assert "none matches it as a pattern" in result.stderr


def test_a_list_on_standard_input(detect, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes, *args: object):
        runner = CliRunner()
        return runner.invoke(main.cli, ["detect", "bundle", *map(str, args)], input=data)

    assert given(b"a.png\nfake.png\n", "-").stdout.split() == [
        *("0.0004", "real", "a.png"),
        *("0.9731", "fake", "fake.png"),
    ]
    assert given(b"a\n.png\0fake.png\0", "-0", "first.png", "-").stdout.count("\n") == 3
    empty = given(b"", "-")
    assert empty.exit_code == 2
    assert "no image or video found in standard input" in empty.stderr
    assert given(b"", "--null", "a.png").exit_code == 2
    assert given(b"", "a.png", "--json", "--jsonl").exit_code == 2


def test_names_that_are_no_text(detect) -> None:
    name = b"\xff\x1b.png".decode("utf-8", "surrogateescape")
    assert detect(name).stdout == "0.0004  real  \\udcff\\x1b.png\n"
    assert json.loads(detect(name, "--json").stdout)[0]["path"] == name
    assert b"\xff\x1b.png" in detect(name, "--csv").stdout_bytes


def test_options(detect) -> None:
    assert detect("a.png", "--threshold", "0.9", "--threads", "2").exit_code == 0
    assert Detector.opened == (Path("bundle"), 2)
    assert Detector.options["threshold"] == 0.9
    assert detect("a.png").exit_code == 0
    assert Detector.opened == (Path("bundle"), None)
    assert Detector.options == {"threshold": None, "batch": BATCH, "every": EVERY, "frames": False}
    assert detect("a.png", "--batch", 3, "--every", 4, "--frames").exit_code == 0
    assert Detector.options == {"threshold": None, "batch": 3, "every": 4, "frames": True}


def test_defaults_are_the_runtimes() -> None:
    assert (cli.BATCH, options.EVERY) == (BATCH, EVERY)


def test_no_image_at_all(detect, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    result = detect(tmp_path)
    assert result.exit_code == 2
    assert "no image or video found" in result.stderr
    assert result.stdout == ""


def test_no_bundle(invoke, tmp_path: Path) -> None:
    result = invoke("detect", tmp_path / "none", "a.png")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("qmdd: error: ")
    assert len(result.stderr.splitlines()) == 1
