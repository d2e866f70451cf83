"""A model cannot take more memory than it was given while it is loaded, and says so."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime import load_memory
from qmdd.runtime.load_memory import LOAD_BYTES, MOST_LOAD_BYTES, bytes_to_load, limited
from qmdd.runtime.session_memory import VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit it")

_SIDE, _TIMES = 4096, 4


def _constants() -> bytes:
    """A model whose four constants of 64 MiB are made of vectors of 16 KiB."""
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Cast", ["mean"], ["place"], to=TensorProto.INT64),
    ]
    weights, terms = [], ["mean"]
    for index in range(_TIMES):
        column, row, made = f"column{index}", f"row{index}", f"made{index}"
        weights += [
            numpy_helper.from_array(np.full((_SIDE, 1), index, dtype=np.float32), column),
            numpy_helper.from_array(np.full((1, _SIDE), -index, dtype=np.float32), row),
        ]
        nodes += [
            helper.make_node("Add", [column, row], [made]),
            helper.make_node("Gather", [made, "place"], [f"part{index}"]),
            helper.make_node("ReduceMax", [f"part{index}"], [f"most{index}"], keepdims=0),
        ]
        terms.append(f"most{index}")
    graph = helper.make_graph(
        [*nodes, helper.make_node("Sum", terms, ["logit"])],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


#: Loads a model within so many bytes. A process of its own: memory that another one has freed and
#: kept is no new memory.
_LOAD = """
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime
from qmdd.runtime import session
from qmdd.runtime.errors import SessionError
from qmdd.runtime.process import resident_memory
session.bytes_to_load = lambda *_sizes: int(sys.argv[2])
model, said, logits = Path(sys.argv[1]).read_bytes(), "", []
before = resident_memory()
try:
    made = session.OnnxSession(model, threads=1, memory=512 << 20)
except SessionError as error:
    said = str(error)
held = resident_memory() - before
if not said:
    logits = made.logits(np.zeros((1, 3, 32, 32), dtype=np.uint8)).tolist()
print(json.dumps({"held": held, "said": said, "logits": logits}))
"""


def _loaded(model: bytes, folder: Path, most: int) -> dict[str, Any]:
    """What loading the model holds, within ``most`` bytes, what is said, and a score if it can."""
    (folder / "model.onnx").write_bytes(model)
    command = [sys.executable, "-c", _LOAD, str(folder / "model.onnx"), str(most)]
    told: dict[str, Any] = json.loads(subprocess.check_output(command, text=True))
    return told


def test_constants_that_are_computed_count(tmp_path: Path) -> None:
    free = _loaded(_constants(), tmp_path, 1 << 30)
    assert free["held"] > 240 << 20  # the test sees something: all four are held
    assert free["logits"] == [0]
    tight = _loaded(_constants(), tmp_path, 128 << 20)
    assert tight["held"] < 192 << 20
    # What was left out is computed when it runs, or the model is refused.
    assert tight["logits"] == [0] or "cannot be loaded within 128 MiB" in tight["said"]


def test_too_little_for_the_model_itself_is_told(tmp_path: Path) -> None:
    weights = np.zeros((1, 3, 1024, 8192), dtype=np.float32)  # 96 MiB
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Mul", ["mean", "weights"], ["many"]),
            helper.make_node("ReduceMean", ["many"], ["logit"], axes=[1, 2, 3], keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = _loaded(model.SerializeToString(), tmp_path, 16 << 20)
    assert "cannot be loaded within 16 MiB of memory" in told["said"]
    assert f"{VARIABLE}=2048" in told["said"]
    assert _loaded(model.SerializeToString(), tmp_path, 1 << 30)["logits"] == [0]


def test_a_larger_model_may_take_more_up_to_an_end() -> None:
    assert bytes_to_load(0) == LOAD_BYTES
    assert bytes_to_load(1 << 20) == LOAD_BYTES + (64 << 20)
    assert bytes_to_load(9 << 20) == MOST_LOAD_BYTES - (9 << 20) > 821 << 20
    assert bytes_to_load(256 << 20) == MOST_LOAD_BYTES - (256 << 20)
    assert bytes_to_load(0, 2 << 30) == 2 << 30
    assert bytes_to_load(0, 1) == LOAD_BYTES


@pytest.fixture
def data_limit() -> Iterator[Callable[[], int]]:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield lambda: resource.getrlimit(resource.RLIMIT_DATA)[0]
    resource.setrlimit(resource.RLIMIT_DATA, before)


def test_the_limit_ends_with_the_loading(data_limit: Callable[[], int]) -> None:
    before = data_limit()
    with limited(64 << 20, threads=1):
        assert 0 < data_limit() != before
        with pytest.raises(MemoryError):
            np.ones(512 << 20, dtype=np.uint8)
    assert data_limit() == before
    assert np.ones(512 << 20, dtype=np.uint8)[-1] == 1


def test_the_limit_ends_for_threads_that_take_turns(data_limit: Callable[[], int]) -> None:
    before = data_limit()

    def hold() -> None:
        for _ in range(50):
            with limited(1 << 30, threads=1):
                time.sleep(0.0002)

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert data_limit() == before


def test_a_limit_that_is_there_is_not_lifted(data_limit: Callable[[], int]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    low = load_memory.data_memory() + (256 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (low, hard))
    with limited(1 << 40, threads=1):
        assert data_limit() == low
    assert data_limit() == low


def test_where_the_system_does_not_tell_there_is_no_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_limit: Callable[[], int]
) -> None:
    monkeypatch.setattr("qmdd.runtime.process._STATUS", tmp_path / "none")
    before = data_limit()
    with limited(1, threads=1):
        assert data_limit() == before
