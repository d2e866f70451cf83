"""The watch as a play: what happens in the folder while it waits, with a clock that is ours."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qmdd.runtime.detector import Detector
from qmdd.runtime.errors import DataError
from qmdd.runtime.watching import loop
from qmdd.runtime.watching.log import VerdictLog
from qmdd.runtime.watching.loop import Tally, Watch
from qmdd.runtime.watching.scan import Scan, suffixes
from qmdd.runtime.watching.signals import Signals

Scene = Callable[[], None]


class Play(Signals):
    """Each wait moves our clock and brings the next scene; after the last, it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.scenes: list[Scene] = []

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.scenes:
            self.scenes.pop(0)()
        else:
            self.stop = True


class Stage:
    """A folder, a log, a detector, and the play."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.inbox, self.path = folder / "in", folder / "verdicts.jsonl"
        self.inbox.mkdir()
        self.bundle = bundle
        self.said: list[str] = []
        self.signals = Play()

    def put(self, name: str, level: int = 200) -> Path:
        path = self.inbox / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), level, np.uint8)).save(path)
        return path

    def play(self, *scenes: Scene, settle: float = 2.0, once: bool = False, **options) -> Tally:
        """One second passes from one scene to the next."""
        play = Play()
        play.scenes = list(scenes)
        scan = Scan(self.inbox, suffixes(), settle, play.clock)
        self.signals = play
        with VerdictLog(self.path) as log:
            return Watch(
                Detector.open(self.bundle, threads=1),
                scan,
                log,
                poll=1.0,
                signals=play,
                clock=play.clock,
                say=self.said.append,
                **options,
            ).run(once=once)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def names(self) -> list[str]:
        return [line["path"] for line in self.lines()]


@pytest.fixture
def stage(tmp_path: Path, make_bundle: Callable[..., Path]) -> Stage:
    return Stage(tmp_path, make_bundle())


@pytest.fixture(autouse=True)
def looks_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a slow look would lengthen the wait, by the real clock."""
    monkeypatch.setattr(loop, "_SHARE", 1.0)


def nothing() -> None:
    pass


def test_once(stage: Stage) -> None:
    stage.put("b.png", 200)
    stage.put("sub/a.png", 20)
    (stage.inbox / "notes.txt").write_text("no image")
    (stage.inbox / "broken.jpg").write_bytes(b"no image either")
    assert stage.play(nothing, once=True) == Tally(scored=2, failed=1, waiting=0)
    told = {line["path"]: line for line in stage.lines()}
    assert told["b.png"]["verdict"] == "fake"
    assert told["sub/a.png"]["verdict"] == "real"
    assert "not an image" in told["broken.jpg"]["error"]
    assert "score" not in told["broken.jpg"]
    (score,) = [v.score for v in Detector.open(stage.bundle).detect([stage.inbox / "b.png"])]
    assert told["b.png"]["score"] == score
    status = (stage.inbox / "b.png").stat()
    assert told["b.png"]["size"] == status.st_size
    assert told["b.png"]["mtime_ns"] == status.st_mtime_ns
    assert len(told["b.png"]["model"]) == 16
    assert stage.play(once=True) == Tally()
    assert len(stage.lines()) == 3


def test_without_waiting(stage: Stage) -> None:
    stage.put("a.png")
    assert stage.play(settle=0, once=True) == Tally(scored=1)


def test_once_without_the_folder(stage: Stage) -> None:
    stage.inbox.rmdir()
    with pytest.raises(DataError, match="no such folder"):
        stage.play(once=True)


def test_a_slow_writer(stage: Stage) -> None:
    """Half a file is no error: nothing is said of it until it has come to rest."""
    data = stage.put("whole.png").read_bytes()
    slow = stage.inbox / "slow.png"
    parts = [data[start : start + 30] for start in range(0, len(data), 30)]

    def more(part: bytes) -> Scene:
        def scene() -> None:
            with slow.open("ab") as file:
                file.write(part)
            assert "slow.png" not in stage.names()

        return scene

    assert len(parts) > 3
    assert stage.play(*map(more, parts), nothing, nothing, nothing) == Tally(scored=2)
    assert stage.names() == ["whole.png", "slow.png"]
    assert stage.lines()[1]["size"] == len(data)


def test_once_leaves_what_is_still_being_written(stage: Stage) -> None:
    data = stage.put("whole.png").read_bytes()
    slow = stage.inbox / "slow.png"
    slow.write_bytes(data[:50])
    assert stage.play(lambda: slow.write_bytes(data), once=True) == Tally(scored=1, waiting=1)


def test_a_file_that_changes_while_it_is_scored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was scored is not what lies there: no line on it, and it is scored again."""
    path = stage.put("a.png", 200)
    scores = Detector._scores_of_many

    def slowly(self: Detector, images: np.ndarray) -> list[float]:
        if path.stat().st_mtime_ns != 5:
            stage.put("a.png", 20)
            os.utime(path, ns=(5, 5))
        return scores(self, images)

    monkeypatch.setattr(Detector, "_scores_of_many", slowly)
    assert stage.play(*[nothing] * 6) == Tally(scored=1)
    assert [line["verdict"] for line in stage.lines()] == ["real"]


def test_a_rename_into_the_folder(stage: Stage) -> None:
    """With the same size and time that it had outside."""
    made = stage.put("a.png")
    outside = stage.path.parent / "outside.png"
    made.rename(outside)
    scenes = [lambda: outside.rename(stage.inbox / "b.png")]
    assert stage.play(*scenes, nothing, nothing, nothing) == Tally(scored=1)
    assert stage.names() == ["b.png"]


def test_a_file_is_scored_again_when_it_changes_and_a_broken_one_only_then(stage: Stage) -> None:
    stage.put("a.png", 20)
    broken = stage.inbox / "b.png"
    broken.write_bytes(b"half")

    def change() -> None:
        assert sorted(stage.names()) == ["a.png", "b.png"]
        stage.put("a.png", 200)
        stage.put("b.png", 200)
        os.utime(broken, ns=(1, 1))

    tally = stage.play(*[nothing] * 5, change, *[nothing] * 5)
    assert tally == Tally(scored=3, failed=1)
    assert [line.get("verdict") for line in stage.lines()] == ["real", None, "fake", "fake"]


def test_a_disk_that_is_pulled_out_and_comes_back(stage: Stage) -> None:
    stage.put("a.png")
    away = stage.inbox.with_name("away")
    gone = [lambda: stage.inbox.rename(away), nothing, nothing]

    def back() -> None:
        away.rename(stage.inbox)
        stage.put("b.png")

    assert stage.play(*[nothing] * 3, *gone, back, *[nothing] * 3) == Tally(scored=2)
    assert stage.names() == ["a.png", "b.png"]
    assert stage.said == [f"{stage.inbox}: not there; waiting for it", f"{stage.inbox}: there"]


def test_a_folder_that_comes_later(stage: Stage) -> None:
    stage.inbox.rmdir()

    def come() -> None:
        stage.inbox.mkdir()
        stage.put("a.png")

    assert stage.play(nothing, come, *[nothing] * 3) == Tally(scored=1)


def test_a_full_disk(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, tried again, and nothing is lost or written twice."""
    stage.put("a.png")
    stage.put("b.png")
    fails = iter([OSError(28, "No space left on device")] * 3)
    fsync = os.fsync

    def sometimes(handle: int) -> None:
        error = next(fails, None)
        if error is not None:
            raise error
        fsync(handle)

    def fill() -> None:
        monkeypatch.setattr(os, "fsync", sometimes)

    assert stage.play(fill, *[nothing] * 8) == Tally(scored=2)
    assert stage.names() == ["a.png", "b.png"]
    assert stage.said == [
        f"{stage.path}: No space left on device; trying again, nothing is lost",
        f"{stage.path}: written again",
    ]


def test_told_to_end_while_the_disk_is_full(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the file is scored next time."""
    stage.put("a.png")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        assert stage.play(lambda: patch.setattr(os, "fsync", full), *[nothing] * 4) == Tally()
    assert stage.lines() == []
    assert stage.play(nothing, once=True) == Tally(scored=1)


def test_a_video_is_one_line(stage: Stage, make_video: Callable[..., Path]) -> None:
    make_video(stage.inbox / "clip.avi", [200] * 25)
    assert stage.play(nothing, once=True, every=10) == Tally(scored=1)
    (line,) = stage.lines()
    assert (line["path"], line["frames"], line["decoded"]) == ("clip.avi", 3, 25)


def test_a_long_video_is_left_when_it_is_told_to_end(
    stage: Stage, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(stage.inbox / "clip.avi", [200] * 300)
    alive = loop.Notify.alive
    frames = 0
    play: list[Play] = []
    monkeypatch.setattr(
        Play, "__init__", lambda self, init=Play.__init__: (play.append(self), init(self))[1]
    )

    def counting(self: loop.Notify) -> None:
        nonlocal frames
        frames += 1
        stage.signals.stop = frames > 5
        alive(self)

    monkeypatch.setattr(loop.Notify, "alive", counting)
    assert stage.play(nothing, settle=0, every=1) == Tally()
    assert stage.lines() == []
    assert frames < 100


def test_without_pyav_videos_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from qmdd.runtime.watching import scan

    assert ".mp4" in scan.suffixes()
    monkeypatch.setattr(scan, "find_spec", lambda _name: None)
    assert ".mp4" not in scan.suffixes()
    assert ".jpg" in scan.suffixes()


def test_a_look_that_is_ended_forgets_no_file_that_waits(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    now = [0.0]
    scan = Scan(tmp_path, suffixes(), 5.0, lambda: now[0])
    assert list(scan.ready(set(), lambda: True)) == []
    now[0] = 3.0
    assert list(scan.ready(set(), lambda: False)) == []
    now[0] = 5.0
    assert [found.name for found in scan.ready(set(), lambda: True)] == ["a.jpg", "b.jpg", "c.jpg"]


def test_what_is_gone_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    scan = Scan(tmp_path, suffixes(), 5.0)
    assert not list(scan.ready(set(), lambda: True))
    assert len(scan.waiting) == 1
    (tmp_path / "a.jpg").unlink()
    assert not list(scan.ready(set(), lambda: True))
    assert scan.waiting == {}


def test_a_folder_that_may_not_be_listed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, and the rest is scored. (Root may list all: the refusal is made here.)"""
    stage.put("closed/a.png")
    stage.put("open/b.png")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert stage.play(*[nothing] * 5) == Tally(scored=1)
    assert stage.names() == ["open/b.png"]
    closed = (
        f"{stage.inbox / 'closed'}: may not be listed and is passed over; check its permissions"
    )
    assert stage.said == [closed]


def test_a_huge_folder_is_looked_through_less_often(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SHARE", 0.1)
    waits: list[float] = []
    wait = Play.wait

    def noting(self: Play, seconds: float) -> None:
        waits.append(seconds)
        wait(self, seconds)

    ready = Scan.ready

    def slowly(self: Scan, *arguments: object) -> Iterator:
        yield from ready(self, *arguments)
        self.took = 4.0

    monkeypatch.setattr(Play, "wait", noting)
    monkeypatch.setattr(Scan, "ready", slowly)
    stage.play(nothing)
    assert waits == [pytest.approx(36.0)] * 2


def test_the_log_may_lie_in_the_folder(stage: Stage) -> None:
    stage.path = stage.inbox / "verdicts.jsonl"
    stage.put("a.png")
    shutil.copy(stage.inbox / "a.png", stage.inbox / "b.png")
    assert stage.play(nothing, once=True) == Tally(scored=2)
