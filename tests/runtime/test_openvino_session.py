"""OpenVINO behind the same door as ONNX Runtime, and the account of what it built."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.cli.options import RUNTIMES as OFFERED
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.errors import BundleError, SessionError
from qmdd.runtime.openvino_audit import MISSING, audit, fallbacks, openvino_layers
from qmdd.runtime.openvino_session import EXACT, OpenvinoSession
from qmdd.runtime.session import OnnxSession
from qmdd.runtime.sessions import RUNTIMES, open_session

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

U8 = npt.NDArray[np.uint8]
ModelFactory = Callable[..., bytes]


def _flat(*levels: int, side: int = 32) -> U8:
    image = np.ones((1, 3, side, side), dtype=np.uint8)
    return np.concatenate([image * np.uint8(level) for level in levels])


def _int8_model(kind: str = "codes") -> bytes:
    """``logit`` is the middle of a 3x3 convolution; its data are codes, or floats (``floats``)."""
    rng = np.random.default_rng(0)
    weights = (rng.integers(0, 4, (16, 16, 3, 3)) * 2 - 3).astype(np.int8)
    entry = (rng.integers(0, 4, (16, 3, 1, 1)) - 2).astype(np.float32)
    constants: dict[str, Any] = {
        "entry.weights": entry,
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weights": weights,
        "multiplier": rng.uniform(0.01, 0.1, (1, 16, 1, 1)).astype(np.float32),
        "axes": np.array([1, 2, 3], dtype=np.int64),
        "limit": np.float32(100),
    }
    codes = [
        helper.make_node("GreaterOrEqual", ["wide", "limit"], ["reached"]),
        helper.make_node("Cast", ["reached"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["count", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["data"]),
    ]
    floats = [helper.make_node("Identity", ["wide"], ["data"])]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "entry.weights"], ["wide"], name="entry"),
        *(codes if kind == "codes" else floats),
        helper.make_node("DequantizeLinear", ["weights", "one"], ["values"]),
        helper.make_node("Conv", ["data", "values"], ["acc"], name="layer", pads=[1] * 4),
        helper.make_node("Mul", ["acc", "multiplier"], ["scaled"], name="scale"),
        helper.make_node("ReduceMax", ["scaled", "axes"], ["logit"], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])
    logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "int8", [image], [logit], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


PLAN = [
    {"name": "entry", "op": "Conv", "compute": "float32"},
    {"name": "layer", "op": "Conv", "compute": "int8"},
]


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_logits_are_the_models(make_model: ModelFactory, threads: int | None) -> None:
    session = OpenvinoSession(make_model(), threads=threads)
    assert session.logits(_flat(0, 128, 160, 255)).tolist() == [-4.0, 0.0, 1.0, 127 / 32]
    assert session.logits(_flat(96, side=34)).tolist() == [-1.0]


def test_a_path_and_bytes_are_the_same_model(make_model: ModelFactory, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_model())
    assert OpenvinoSession(path).logits(_flat(64)).tolist() == [-2.0]


def test_outputs_are_chosen_by_name_and_kept(make_model: ModelFactory) -> None:
    """An array stays as it is when the session runs again."""
    only = OpenvinoSession(make_model(), outputs=["mean"])
    first = only.run(_flat(7, 8))["mean"]
    only.run(_flat(9, 10))
    assert first.tolist() == [7.0, 8.0]
    with pytest.raises(SessionError, match="logit is not among its outputs"):
        only.logits(_flat(7))
    with pytest.raises(SessionError, match="has no output x; outputs: logit, mean"):
        OpenvinoSession(make_model(), outputs=["x"])


def test_it_is_compiled_as_asked(make_model: ModelFactory) -> None:
    compiled = OpenvinoSession(make_model(), threads=2)._compiled
    assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0
    assert compiled.get_property("CPU_DENORMALS_OPTIMIZATION") is False
    assert EXACT["SNIPPETS_MODE"] == "DISABLE"


@pytest.mark.parametrize("data", [b"", b"these are words", b"\x08\x08", bytes(100)])
def test_what_is_no_model_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for model in (data, path):
        with pytest.raises(SessionError) as caught:
            OpenvinoSession(model)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700


def test_other_inputs_images_and_files_are_refused(
    make_model: ModelFactory, tmp_path: Path
) -> None:
    with pytest.raises(SessionError, match=r"uint8.*it has image: tensor\(float32\)"):
        OpenvinoSession(make_model(dtype=TensorProto.FLOAT))
    with pytest.raises(SessionError, match=r"absent\.onnx: no such model file"):
        OpenvinoSession(tmp_path / "absent.onnx")
    with pytest.raises(SessionError, match="must be uint8"):
        OpenvinoSession(make_model()).run(np.zeros((1, 1, 32, 32), dtype=np.uint8))
    with pytest.raises(SessionError, match=r"cannot run on \[1, 3, 64, 64\]"):
        OpenvinoSession(make_model(side=32)).run(_flat(1, side=64))


def test_a_missing_openvino_is_named(
    make_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SessionError, match=r"pip install 'qmdd\[openvino\]'"):
        OpenvinoSession(make_model())


def test_the_runtime_is_the_bundles_or_the_one_asked_for(
    make_bundle: Callable[..., Path], tiny_manifest: Callable[[], dict[str, Any]]
) -> None:
    assert RUNTIMES == OFFERED
    plain = Bundle.open(make_bundle())
    assert isinstance(open_session(plain), OnnxSession)
    assert isinstance(open_session(plain, runtime="openvino"), OpenvinoSession)
    other = Bundle.open(make_bundle({**tiny_manifest(), "runtime": "openvino"}, name="other"))
    assert isinstance(open_session(other), OpenvinoSession)
    assert isinstance(open_session(other, runtime="onnxruntime"), OnnxSession)
    with pytest.raises(SessionError, match="no runtime 'tvm'; there are onnxruntime, native"):
        open_session(plain, runtime="tvm")


def test_int8_layers_are_found_and_named() -> None:
    layers = audit(OpenvinoSession(_int8_model(), threads=1), PLAN)
    assert [(layer.name, layer.planned, layer.built) for layer in layers] == [
        ("entry", "float32", "float32"),
        ("layer", "int8", "int8"),
    ]
    assert layers[1].kernel.lower().endswith("i8")
    assert fallbacks(layers) == []


def test_a_silent_fallback_is_named() -> None:
    """The same plan for a model whose convolution reads floats."""
    layers = audit(OpenvinoSession(_int8_model("floats"), threads=1), PLAN)
    (line,) = fallbacks(layers)
    assert line.startswith("layer: planned int8, runs float32 (")
    gone = audit(OpenvinoSession(_int8_model(), threads=1), [{**PLAN[1], "name": "absent"}])
    assert gone[0].built == MISSING
    assert fallbacks(gone) == ["absent: planned int8, runs missing"]


def test_a_bundle_without_a_plan_is_refused(make_bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="no plan of layers; export it again"):
        openvino_layers(Bundle.open(make_bundle()))


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """No connection is tried and no file is left in the home folder, in a fresh process."""
    model = tmp_path / "model.onnx"
    model.write_bytes(_int8_model())
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
import socket, sys, threading
tried = []
def refuse(*args, **kwargs):
    tried.append(args)
    raise OSError("no network")
socket.socket.connect = socket.create_connection = refuse
from pathlib import Path
from qmdd.runtime.openvino_session import OpenvinoSession
OpenvinoSession(Path({str(model)!r}))
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(5)
sys.exit(len(tried))
"""
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=120)
    assert done.returncode == 0
    assert list(home.iterdir()) == []
