"""Small detectors by hand, with and without faults, bundles around them, and real builds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.plan import planned_layers
from qmdd.runtime.bundle import manifest_bytes
from qmdd.runtime.contract import INPUT, OUTPUT, SIDES, THRESHOLD
from qmdd.runtime.engine import EngineRecord
from qmdd.runtime.errors import EngineError
from qmdd.runtime.tensorrt_api import load_tensorrt

ModelFactory = Callable[..., onnx.ModelProto]
BundleFactory = Callable[..., Path]

CHANNELS = 32


@pytest.fixture(autouse=True)
def _logs_of_failed_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept in the system's folder for temporary files; a test's go with the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture(scope="session")
def rtx() -> str:
    """Version of TensorRT-RTX; a test that asks for it builds a real engine."""
    try:
        return str(load_tensorrt("tensorrt_rtx").__version__)
    except EngineError as error:
        pytest.skip(str(error))


class _Graph:
    """Nodes and constants under names of our choice."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(3)

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        array = np.asarray(value, dtype=dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], out: str, name: str = "", **attrs: Any) -> str:
        name = name or f"{out}/{op}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=name, **attrs))
        return out

    def q_dq(self, x: str, out: str, scale: str, zero: str, **attrs: Any) -> str:
        codes = self.node("QuantizeLinear", [x, scale, zero], f"{out}.q", **attrs)
        return self.node("DequantizeLinear", [codes, scale, zero], f"{out}.d", **attrs)


@pytest.fixture(scope="session")
def make_model() -> ModelFactory:
    """A detector of a float stem, two INT8 convolutions with a shortcut, and a head.

    ``fault`` spoils the second convolution, ``layers.1/Conv``: ``axis``, ``between``, ``uint8``,
    ``per_channel``, ``concat``; ``storage`` is ``int8``, or ``int4`` as TensorRT-RTX unpacks it.
    """

    def make(fault: str = "", storage: str = "int8", image: str = "image") -> onnx.ModelProto:
        g = _Graph()
        g.constant("one", 1), g.constant("low", 0), g.constant("high", 3)
        g.constant("zero", 0, np.int8), g.constant("zero.u8", 0, np.uint8)
        pixels = g.node("Cast", [image], "pixels", to=TensorProto.FLOAT)
        stem = g.constant("stem.weight", g.rng.normal(size=(CHANNELS, 3, 4, 4)))
        x = g.node("Conv", [pixels, stem], "stem", "stem/Conv", strides=[2, 2], pads=[1] * 4)
        for index in range(2):
            planted = fault if index == 1 else ""
            name = f"layers.{index}"
            data = _activations(g, x, name, planted)
            weights = _weights(g, name, planted, storage)
            y = g.node("Conv", [data, weights], f"{name}.y", f"{name}/Conv", pads=[1] * 4)
            x = g.node("Add", [y, x], f"{name}.sum")
        pooled = g.node("Flatten", [g.node("GlobalAveragePool", [x], "pooled")], "flat")
        head = g.constant("head.weight", g.rng.normal(size=(CHANNELS, 1)))
        score = g.node("MatMul", [pooled, head], "score", "head/MatMul")
        g.node("Reshape", [score, g.constant("shape", [-1], np.int64)], "logit")
        graph = helper.make_graph(
            g.nodes,
            "qmdd",
            [helper.make_tensor_value_info(image, TensorProto.UINT8, ["N", 3, "H", "W"])],
            [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
            g.constants,
        )
        opset = 21 if storage == "int4" else 17
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="qmdd")
        onnx.checker.check_model(model, full_check=True)
        return model

    return make


def _activations(g: _Graph, x: str, name: str, fault: str) -> str:
    clipped = g.node("Clip", [x, "low", "high"], f"{name}.clip")
    if fault == "per_channel":
        g.constant("scales", g.rng.uniform(0.5, 2, CHANNELS))
        g.constant("zeros", np.zeros(CHANNELS), np.int8)
        return g.q_dq(clipped, f"{name}.in", "scales", "zeros", axis=1)
    if fault == "concat":
        g.constant("other", 0.3)
        pair = [
            g.q_dq(clipped, f"{name}.in", "one", "zero"),
            g.q_dq(x, f"{name}.in2", "other", "zero"),
        ]
        return g.node("Concat", pair, f"{name}.both", axis=1)
    return g.q_dq(clipped, f"{name}.in", "one", "zero.u8" if fault == "uint8" else "zero")


def _weights(g: _Graph, name: str, fault: str, storage: str) -> str:
    shape = (CHANNELS, CHANNELS * (2 if fault == "concat" else 1), 3, 3)
    codes = g.rng.integers(-3, 4, shape).astype(np.int8)
    scales = g.constant(f"{name}.scales", g.rng.uniform(0.01, 0.1, CHANNELS))
    zeros = g.constant(f"{name}.zeros", np.zeros(CHANNELS), np.int8)
    held = f"{name}.weight"
    if storage == "int4":
        low, high = codes.reshape(-1)[0::2] & 15, codes.reshape(-1)[1::2] & 15
        packed = (low | high << 4).astype(np.uint8).tobytes()
        kind = TensorProto.INT4
        g.constants.append(onnx.TensorProto(name=held, data_type=kind, dims=shape, raw_data=packed))
        wide = g.node("DequantizeLinear", [held, "one"], f"{name}.wide")
        g.constant(f"{name}.least", -8), g.constant(f"{name}.most", 7)
        wide = g.node("Clip", [wide, f"{name}.least", f"{name}.most"], f"{name}.within")
        held = g.node("QuantizeLinear", [wide, "one", "zero"], f"{name}.codes")
    else:
        g.constant(held, codes, np.int8)
    axis = 1 if fault == "axis" else 0
    weights = g.node("DequantizeLinear", [held, scales, zeros], f"{name}.w", axis=axis)
    if fault == "between":
        weights = g.node("Relu", [weights], f"{name}.relu")
    return weights


@pytest.fixture
def make_bundle(tmp_path: Path, make_model: ModelFactory) -> BundleFactory:
    """A bundle for ``target`` around ``make_model(**options)``, or around the bytes ``model``.

    Its plan is that of the sound model, even where ``options`` plant a fault. ``changes`` go into
    its manifest; a value of ``None`` takes a key out.
    """

    def make(
        *,
        target: str = "rtx",
        model: bytes | None = None,
        changes: dict[str, Any] | None = None,
        **options: Any,
    ) -> Path:
        folder = tmp_path / "bundle"
        folder.mkdir()
        proto = make_model(**options)
        sound = make_model(**{**options, "fault": "", "image": "image"})
        data = proto.SerializeToString(deterministic=True) if model is None else model
        (folder / "model.onnx").write_bytes(data)
        manifest = {
            "schema": 1,
            "arch": "resnet23",
            "bits": 2,
            "target": target,
            "opset": proto.opset_import[0].version,
            "input": {**INPUT, **SIDES},
            "output": OUTPUT,
            "threshold": THRESHOLD,
            "plan": [layer.to_dict() for layer in planned_layers(sound)],
            "files": {
                "model.onnx": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            },
            **(changes or {}),
        }
        kept = {key: value for key, value in manifest.items() if value is not None}
        (folder / "manifest.json").write_bytes(manifest_bytes(kept))
        return folder

    return make


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """All files of a folder, hidden ones too, by their relative names."""
    return lambda folder: {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def record() -> EngineRecord:
    """A sidecar; its hashes are those of nothing."""
    return EngineRecord(
        label="built, not run",
        target="orin-nano@6.2",
        backend="tensorrt",
        version="10.3.0",
        compute_capabilities=("8.7",),
        systems=("Linux",),
        machine="aarch64",
        onnx_sha256="0" * 64,
        engine_sha256="0" * 64,
        profile={"min": (1, 3, 32, 32), "opt": (1, 3, 64, 64), "max": (2, 3, 64, 64)},
        options={"workspace_mib": 512},
        seconds={"build": 1.5},
        sizes={"engine": 6, "weights": 1, "activations": 2, "peak_memory": 3},
        device={"compute_capability": "8.7"},
    )


@pytest.fixture
def add_engine(record: EngineRecord) -> Callable[..., Path]:
    """``add_engine(bundle, **changes)`` puts an engine of six bytes and its sidecar in a bundle."""

    def add(folder: Path, *, sidecar: bytes | None = None, **changes: Any) -> Path:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        hashes = {
            "onnx_sha256": manifest["files"]["model.onnx"]["sha256"],
            "engine_sha256": hashlib.sha256(b"engine").hexdigest(),
        }
        filled = dataclasses.replace(record, **{**hashes, **changes})
        held = {
            "model.engine": b"engine",
            "engine.json": filled.to_json() if sidecar is None else sidecar,
            "layers.json": b'{"layers": [], "warnings": []}',
            "build.log": b"",
        }
        (folder / "engine" / "1").mkdir(parents=True)
        for name, data in held.items():
            (folder / "engine" / "1" / name).write_bytes(data)
            entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            manifest["files"][f"engine/1/{name}"] = entry
        manifest["engine"] = {"folder": "engine/1"}
        (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
        return folder

    return add
