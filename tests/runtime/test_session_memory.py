"""A model cannot take more memory than it was given, and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime import detector as module
from qmdd.runtime import session_memory
from qmdd.runtime.errors import SessionError
from qmdd.runtime.heap import give_back
from qmdd.runtime.process import resident_memory
from qmdd.runtime.session import OnnxSession
from qmdd.runtime.session_memory import (
    BYTES_A_PIXEL,
    BYTES_AN_IMAGE,
    LEAST_BYTES,
    MOST_PIXELS,
    VARIABLE,
    Pool,
    bytes_for,
)

_IMAGES = np.zeros((1, 3, 32, 32), dtype=np.uint8)


def _outer_product(side: int) -> bytes:
    """A model that adds a row and a column of ``side`` floats: ``4 * side ** 2`` bytes."""
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["floats"], ["one"], keepdims=0),
        helper.make_node("Add", ["one", "column"], ["long"]),
        helper.make_node("Add", ["long", "row"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0),
        helper.make_node("Add", ["mean", "most"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.zeros((side, 1), dtype=np.float32), "column"),
            numpy_helper.from_array(np.zeros((1, side), dtype=np.float32), "row"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_a_model_gets_no_more_than_it_was_given(capfd: pytest.CaptureFixture[str]) -> None:
    model = _outer_product(4096)  # 64 MiB
    assert OnnxSession(model, memory=96 << 20).logits(_IMAGES).tolist() == [0]
    with pytest.raises(SessionError, match=rf"needs more than 32 MiB .*{VARIABLE}=1024"):
        OnnxSession(model, memory=32 << 20).logits(_IMAGES)
    assert capfd.readouterr().err == ""  # one line, ours: not ONNX Runtime's as well


def test_by_default_it_may_have_half_of_the_machines_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_memory, "memory_bytes", lambda: 64 << 20)
    with pytest.raises(SessionError, match=r"needs more than 32 MiB .*half of this machine"):
        OnnxSession(_outer_product(4096)).logits(_IMAGES)


def test_where_the_memory_is_not_known_there_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_memory, "memory_bytes", lambda: 0)
    assert OnnxSession(_outer_product(4096)).logits(_IMAGES).tolist() == [0]


def test_sessions_have_bounds_of_their_own() -> None:
    """The bound of a later session does not become an earlier one's, from any thread."""
    model = _outer_product(4096)
    small = OnnxSession(model, memory=32 << 20)
    made: list[Any] = []
    threads = [
        threading.Thread(target=lambda: made.append(OnnxSession(model, memory=96 << 20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [session.logits(_IMAGES).tolist() for session in made] == [[0]] * 4
    with pytest.raises(SessionError, match="needs more than 32 MiB"):
        small.logits(_IMAGES)


def test_the_environment_may_allow_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert bytes_for() == LEAST_BYTES
    monkeypatch.setenv(VARIABLE, "768")
    assert bytes_for() == 768 << 20
    assert bytes_for(3, 64) == 3 * (768 << 20)
    for wrong in ("0", "-1", "a lot", "1e3", "123456789", "٣"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(SessionError, match="whole number of MiB"):
            bytes_for()


def test_large_images_may_take_more_and_larger_ones_no_more_than_that() -> None:
    assert bytes_for(3) == LEAST_BYTES + 2 * BYTES_AN_IMAGE
    assert bytes_for(1, 32 * 32) == LEAST_BYTES
    assert bytes_for(1, MOST_PIXELS) == MOST_PIXELS * BYTES_A_PIXEL > LEAST_BYTES
    assert bytes_for(1, 100 * MOST_PIXELS) == bytes_for(1, MOST_PIXELS)
    assert bytes_for(8, MOST_PIXELS) == 8 * bytes_for(1, MOST_PIXELS)


def test_a_pool_is_shared_by_its_sessions_alone() -> None:
    """Two hold more than the pool has only if each has one of its own, or gives memory back."""
    model = _outer_product(4096)  # 64 MiB
    pool = Pool(96 << 20)
    first = OnnxSession(model, memory=pool)
    second = OnnxSession(model, memory=pool)
    assert first.logits(_IMAGES).tolist() == [0]
    # The first one's memory is free for the second: an arena of its own would have to grow.
    grown = _resident(lambda: second.logits(_IMAGES))
    assert grown < 32 << 20
    other = OnnxSession(model, memory=96 << 20)
    assert _resident(lambda: other.logits(_IMAGES)) > 48 << 20
    pool.allow(32 << 20)  # less than before is nothing
    assert pool.most == 96 << 20


def test_a_pool_that_grows_is_there_for_new_sessions() -> None:
    model, pool = _outer_product(4096), Pool(32 << 20)
    small = OnnxSession(model, memory=pool)
    pool.allow(96 << 20)
    assert OnnxSession(model, memory=pool).logits(_IMAGES).tolist() == [0]
    with pytest.raises(SessionError, match="needs more than 32 MiB"):
        small.logits(_IMAGES)


def test_memory_is_given_back_after_each_run() -> None:
    session = OnnxSession(_outer_product(4096), memory=96 << 20, shrink=True)
    assert _resident(lambda: session.logits(_IMAGES)) < 32 << 20
    kept = OnnxSession(_outer_product(4096), memory=96 << 20)
    assert _resident(lambda: kept.logits(_IMAGES)) > 48 << 20


def _resident(run: Callable[[], object]) -> int:
    """Bytes by which what this process holds grows while ``run`` runs, and keeps."""
    give_back()  # what it has freed before and kept would be no growth
    before = resident_memory()
    run()
    return resident_memory() - before


def test_detectors_are_bounded_by_what_is_computed_at_a_time(
    make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the batch, twice the memory: a batch is an honest wish."""
    asked: list[int] = []
    real = module.open_session

    def noted(*args: Any, memory: int, **more: Any) -> Any:
        asked.append(memory)
        return real(*args, memory=memory, **more)

    monkeypatch.setattr(module, "open_session", noted)
    detector = module.Detector.open(make_bundle(), threads=2)
    assert asked == [bytes_for(2)]
    assert list(detector.detect([], batch=3)) == []
    assert asked == [bytes_for(2), bytes_for(6)]
    assert list(detector.detect([], batch=2)) == []
    assert len(asked) == 2
