"""The parts of the benchmark: statistics, inputs, processes that fail, the machine."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qmdd.runtime import native
from qmdd.runtime.bench import _why, bench
from qmdd.runtime.bench_inputs import Inputs, find_inputs, size_fault, synthetic
from qmdd.runtime.bench_times import ratio_of, times_of
from qmdd.runtime.bench_twin import KEY, check_twin, topology
from qmdd.runtime.bench_worker import Blocks, Worker, take_turns, workers
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.errors import ImageError, SessionError
from qmdd.runtime.machine import this_machine
from qmdd.runtime.process import peak_memory, reset_peak, resident_memory

#: Answers as a worker does, out of a list of Python expressions that follow the first one.
_SCRIPT = """
import json, os, sys
events = os.fdopen(int(sys.argv[1]), "w", buffering=1)
for line in sys.stdin:
    {body}
"""


def _command(body: str) -> tuple[str, ...]:
    return (sys.executable, "-c", _SCRIPT.format(body=body))


def test_times_are_medians_and_percentiles_in_milliseconds() -> None:
    blocks = Blocks([[0.001 * i for i in range(1, 51)], [0.001 * i for i in range(51, 102)]])
    blocks.cpu = [[0.002], [0.004]]
    times = times_of(blocks, batch=4)
    assert (times.runs, times.turns) == (101, 2)
    assert times.median_ms == pytest.approx(51)
    assert times.p90_ms == pytest.approx(91)
    assert times.p99_ms == pytest.approx(100)
    assert times.least_ms == pytest.approx(1)
    assert times.cpu_ms == pytest.approx(3)
    assert times.images_per_second == pytest.approx(4000 / 51)


def test_a_ratio_compares_turn_by_turn() -> None:
    """The machine that is three times slower in one turn is so for both."""
    ours = Blocks([[1.0, 1.2, 1.1], [3.3], [1.1]], [[2.0], [2.0], [2.0]])
    twin = Blocks([[2.2, 2.2, 9.0], [6.6], [1.0]], [[1.0], [1.0], [1.0]])
    found = ratio_of(ours, twin)
    assert found.median == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5)
    assert 0.5 < found.high <= 1.1
    assert ratio_of(ours, twin, cpu=True).median == pytest.approx(2)


def test_workers_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []

    class Fake:
        def __init__(self, name: str, spent: float) -> None:
            self.name, self.spent = name, spent

        def run(self, count: int) -> tuple[list[float], list[float]]:
            order.append(f"{self.name}{count}")
            return [self.spent] * count, [self.spent] * count

    found = take_turns({"a": Fake("a", 0.05), "b": Fake("b", 1.0)}, seconds=0)  # type: ignore[dict-item]
    assert order == ["a1", "b1", "b1", "a2", "a2", "b1", "b1", "a2"]
    assert found["a"].wall == [[0.05, 0.05]] * 3
    assert found["b"].cpu == [[1.0]] * 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "sys.exit('no such thing')",
            "a: the process .* ended with exit code 1: no such thing",
        ),
        ("os.abort()", "a: the process that timed it ended with SIGABRT"),
        ("os.kill(os.getpid(), 9)", "was killed, as where memory runs out; use a smaller --batch"),
        ("events.write(json.dumps({'error': 'm.onnx: bad'}) + chr(10))", "^m.onnx: bad$"),
    ],
)
def test_a_process_that_fails_says_how(body: str, said: str) -> None:
    with pytest.raises(SessionError, match=said), workers({"a": ({}, _command(body))}):
        raise AssertionError("it did not load")


def test_no_process_is_left_where_the_second_fails() -> None:
    fine = "events.write(json.dumps({'pid': os.getpid()}) + chr(10))"
    seen: list[int] = []
    original = Worker.__init__

    def noted(self: Worker, *args: object) -> None:
        original(self, *args)  # type: ignore[arg-type]
        seen.append(self.loaded["pid"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "__init__", noted)
        asked = {"a": ({}, _command(fine)), "b": ({}, _command("sys.exit(3)"))}
        with pytest.raises(SessionError, match=r"b: .*exit code 3"), workers(asked):
            pass
    (pid,) = seen
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_batches_repeat_the_images() -> None:
    images = [np.full((3, 32, 34), value, dtype=np.uint8) for value in range(3)]
    inputs = Inputs("files", images)
    assert inputs.size == (32, 34)
    two = inputs.batches(2)
    assert two.shape == (2, 2, 3, 32, 34)
    assert two[:, :, 0, 0, 0].tolist() == [[0, 1], [2, 0]]
    assert inputs.batches(5).shape == (1, 5, 3, 32, 34)
    assert len(Inputs("files", images * 9).batches(1)) == 8


def test_logits_are_held_against_the_source_s() -> None:
    images = [np.zeros((3, 32, 32), dtype=np.uint8)] * 2
    inputs = Inputs("golden", images, logits=[1.0, -2.0])
    assert inputs.difference([1.0, -2.0, 1.0]) == 0
    assert inputs.difference([1.0, -2.0, 1.25]) == 0.25
    assert Inputs("golden", images).difference([1.0]) is None


def test_a_made_up_image_is_no_plain_one() -> None:
    image = synthetic(50)
    assert image.shape == (3, 50, 50)
    assert image.dtype == np.uint8
    assert image.std() > 20
    assert (image == synthetic(50)).all()
    assert (image != synthetic(50, seed=1)).any()


def test_inputs_of_a_bundle(make_bundle: Callable[..., Path]) -> None:
    bundle = Bundle.open(make_bundle())
    assert size_fault(bundle, 64) is None
    fault = size_fault(bundle, 63)
    assert fault is not None
    assert "63 pixels a side" in fault
    bundle.manifest["files"].pop("parity/golden.safetensors")
    made_up = find_inputs(bundle, side=64)
    assert (made_up.origin, made_up.size) == ("synthetic", (64, 64))
    with pytest.raises(ImageError, match="63 pixels a side"):
        find_inputs(bundle, side=63)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threads": (0,)}, "threads=0 must be within"),
        ({"batches": (2000,)}, "batch=2000 must be within"),
        ({"runtimes": ("tvm",)}, "no runtime 'tvm'"),
    ],
)
def test_bad_numbers(make_bundle: Callable[..., Path], given: dict[str, object], said: str) -> None:
    with pytest.raises(SessionError, match=said):
        bench(Bundle.open(make_bundle()), Inputs("synthetic", [synthetic(32)]), **given)  # type: ignore[arg-type]


def test_why_a_runtime_runs_it(
    make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(make_bundle())
    assert _why("onnxruntime", bundle, ["onnxruntime"]) == "asked for"
    assert _why("onnxruntime", bundle, []) == "what the bundle was exported for"
    bundle.manifest["files"]["model.native.onnx"] = {}
    assert "they are built here" in _why("native", bundle, [])
    monkeypatch.setattr(native, "library_path", lambda: None)
    told = _why("onnxruntime", bundle, [])
    assert "native operators are not built" in told
    assert told.endswith("portable model is run")


def test_whose_twin_a_file_is(make_bundle: Callable[..., Path]) -> None:
    bundle = Bundle.open(make_bundle())
    config = {"arch": "resnet23", "cqb": True, "representation": "npr", "width": 1.0, "bits": 2}
    bundle.manifest["source"] = {"config": config}
    check_twin({KEY: topology({**config, "bits": 32, "slr": False})}, bundle, "f")
    for other in ({"width": 0.5}, {"cqb": False}, {"arch": "resnet34"}, {"representation": "rgb"}):
        with pytest.raises(SessionError, match=r"f: the twin of .*--write-twin"):
            check_twin({KEY: topology({**config, **other})}, bundle, "f")
    with pytest.raises(SessionError, match="f: not a twin"):
        check_twin({}, bundle, "f")


def test_the_machine_is_described() -> None:
    machine = this_machine()
    assert machine.processor
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.to_dict()["instructions"] == list(machine.instructions)


@pytest.mark.skipif(sys.platform != "linux", reason="memory as Linux tells it")
def test_memory_that_is_let_go_stays_in_the_peak() -> None:
    before = resident_memory()
    # Straight from the system: an array might fit what this process has freed before.
    held = mmap.mmap(-1, 64 << 20)
    for _ in range(64):
        held.write(bytes([1]) * (1 << 20))
    during = resident_memory()
    assert during - before > 48 << 20
    held.close()
    assert during - resident_memory() > 48 << 20
    assert peak_memory() - resident_memory() > 48 << 20
    reset_peak()
    assert peak_memory() - resident_memory() < 16 << 20
