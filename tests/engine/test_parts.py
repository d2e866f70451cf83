"""Small parts of a build: progress, what is asked, the head of an engine."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.exporter.engine.header import version_in_header
from qmdd.exporter.engine.progress import WHOLE, Progress
from qmdd.exporter.engine.request import BuildRequest, Profile, bounds_of
from qmdd.exporter.errors import BuildError


def test_nested_phases_become_one_number() -> None:
    told: list[tuple[str, int]] = []
    progress = Progress(lambda *event: told.append(event))
    progress.start("all", None, 2)
    progress.start("first", "all", 4)
    progress.step("first", 0)
    progress.step("first", 1)
    progress.finish("first")
    progress.step("all", 0)
    progress.start("second", "all", 1)
    progress.step("second", 0)
    progress.finish("second")
    progress.finish("all")
    assert told == [
        ("all", 0),
        ("first", 0),
        ("first", 125),
        ("first", 250),
        ("all", 500),
        ("second", 500),
        ("second", 1000),
    ]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "step", "finish"]),
        st.sampled_from("abc"),
        st.sampled_from(["a", "b", None]),
        st.integers(-1, 5),
    )
)


@given(EVENTS)
def test_any_order_of_events_only_grows(events: list[tuple[str, str, str | None, int]]) -> None:
    told: list[int] = []
    progress = Progress(lambda _what, done: told.append(done))
    for event, name, parent, number in events:
        if event == "start":
            progress.start(name, parent, number)
        elif event == "step":
            progress.step(name, number)
        else:
            progress.finish(name)
    assert told == sorted(told)
    assert all(0 <= done <= WHOLE for done in told)


def test_phases_may_come_from_several_threads() -> None:
    told: list[int] = []
    progress = Progress(lambda _what, done: told.append(done))
    progress.start("all", None, 400)
    threads = [
        threading.Thread(target=lambda k=k: [progress.step("all", k + i) for i in range(100)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == sorted(told)


def test_request_survives_json() -> None:
    request = BuildRequest(
        backend="tensorrt_rtx",
        model="m.onnx",
        folder="f",
        compute_capabilities=("8.6", "12.0"),
        versions=("1.7", "1.7"),
        workspace=1 << 30,
        profile=Profile.of((1, 2, 4), (32, 64, 128)),
    )
    assert "\n" not in request.to_json()
    assert BuildRequest.from_json(request.to_json()) == request
    assert request.profile.opt == (2, 3, 64, 64)


@pytest.mark.parametrize(("text", "bounds"), [("4", (4, 4, 4)), ("2:4:8", (2, 4, 8))])
def test_bounds(text: str, bounds: tuple[int, int, int]) -> None:
    assert bounds_of(text, "--side", 2, 8, 2) == bounds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "give one number, or LEAST:BEST:MOST"),
        ("2:4", "give one number"),
        ("a", "give one number"),
        ("-2", "give one number"),
        ("²", "give one number"),
        ("0", "must ascend within 2..8"),
        ("10", "must ascend within 2..8"),
        ("4:2:8", "must ascend"),
        ("2:3:4", "must be multiples of 2"),
    ],
)
def test_bounds_that_are_none(text: str, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        bounds_of(text, "--side", 2, 8, 2)


def _engine(path: Path, head: bytes, size: int) -> Path:
    path.write_bytes(head.ljust(size, b"\0"))
    return path


def _head(told: int) -> bytes:
    return b"vtrt" + bytes(12) + told.to_bytes(8, "little") + bytes([1, 7, 1, 116])


def test_head_of_an_engine(tmp_path: Path) -> None:
    assert version_in_header(_engine(tmp_path / "e", _head(100), 100)) == "1.7.1.116"


@pytest.mark.parametrize(
    ("head", "size", "said"),
    [
        (b"ftrt", 100, "not an engine of TensorRT-RTX"),
        (_head(10), 10, "not an engine"),
        (_head(101), 100, "100 bytes where its head says 101; it is not whole"),
    ],
)
def test_head_that_is_not_one(tmp_path: Path, head: bytes, size: int, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        version_in_header(_engine(tmp_path / "e", head, size))
