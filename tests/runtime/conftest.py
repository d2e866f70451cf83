"""A model small enough to check by hand, and a bundle around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime.bundle import manifest_bytes

ModelFactory = Callable[..., bytes]
BundleFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def make_model() -> ModelFactory:
    """Bytes of a model whose ``logit`` is ``(mean of the pixels - 128) / 32``.

    Its second output, ``mean``, is the mean itself. ``side`` fixes height and width, ``dtype`` is
    the input's type, ``keep`` keeps the reduced axes (a wrong shape on purpose).
    """

    def make(side: int | None = None, dtype: int = TensorProto.UINT8, keep: bool = False) -> bytes:
        constants = {"middle": np.float32(128), "width": np.float32(32)}
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
                helper.make_node(
                    "ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=int(keep)
                ),
                helper.make_node("Sub", ["mean", "middle"], ["centred"]),
                helper.make_node("Div", ["centred", "width"], ["logit"]),
            ],
            "tiny",
            [helper.make_tensor_value_info("image", dtype, ["N", 3, side or "H", side or "W"])],
            [
                helper.make_tensor_value_info(
                    name, TensorProto.FLOAT, ["N", 1, 1, 1] if keep else ["N"]
                )
                for name in ("logit", "mean")
            ],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    return make


@pytest.fixture(scope="session")
def tiny_manifest(make_model: ModelFactory) -> Callable[[], dict[str, Any]]:
    """A fresh, valid manifest for the tiny model with a stand-in parity file."""

    def make() -> dict[str, Any]:
        files = {"model.onnx": make_model(), "parity/golden.safetensors": b"golden"}
        return {
            "schema": 1,
            "qmdd": "0.1.0",
            "arch": "resnet23",
            "bits": 2,
            "target": "onnx",
            "input": {
                "name": "image",
                "dtype": "uint8",
                "layout": "NCHW",
                "color": "RGB",
                "min_side": 32,
                "multiple": 2,
                "max_side": 64,
            },
            "output": {"name": "logit", "dtype": "float32", "activation": "sigmoid"},
            "threshold": 0.5,
            "files": {
                name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                for name, data in files.items()
            },
        }

    return make


@pytest.fixture
def make_bundle(
    tmp_path: Path, make_model: ModelFactory, tiny_manifest: Callable[[], dict[str, Any]]
) -> BundleFactory:
    """Write a bundle around the tiny model; ``manifest`` replaces the valid one."""

    def make(manifest: dict[str, Any] | bytes | None = None, name: str = "bundle") -> Path:
        folder = tmp_path / name
        (folder / "parity").mkdir(parents=True)
        (folder / "model.onnx").write_bytes(make_model())
        (folder / "parity" / "golden.safetensors").write_bytes(b"golden")
        content = tiny_manifest() if manifest is None else manifest
        data = content if isinstance(content, bytes) else manifest_bytes(content)
        (folder / "manifest.json").write_bytes(data)
        return folder

    return make
