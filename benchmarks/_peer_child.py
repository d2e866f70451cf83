"""A process that times a peer, as :mod:`qmdd.runtime.bench_child` times a bundle.

What is in the request decides: ``torch`` (``eager`` or ``compile``) with ``config``, ``openvino``
(``f32`` or ``bf16``) with ``model``, or a bare ONNX ``model`` in ONNX Runtime, which need not keep
to our types.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np

from qmdd.runtime.bench_child import F32, U8, Subject, main


class OnnxPeer(Subject):
    """Any ONNX file with one input of pixels, in ONNX Runtime."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request

    def prepare(self) -> None:
        import_module("onnxruntime")

    def load(self) -> None:
        ort = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._request["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            self._request["model"], options, providers=["CPUExecutionProvider"]
        )

    def run(self, images: U8) -> F32:
        (logits,) = self._session.run(None, {"image": images})
        return np.asarray(logits, dtype=np.float32).reshape(-1)


class OpenvinoPeer(Subject):
    """An ONNX file in OpenVINO, its shape fixed to the images', which it likes best."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request

    def prepare(self) -> None:
        from qmdd.runtime.openvino_session import require_openvino

        require_openvino()

    def load(self) -> None:
        core = import_module("openvino").Core()
        settings = {
            "INFERENCE_PRECISION_HINT": self._request["openvino"],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._request["threads"],
            "ENABLE_CPU_PINNING": False,
        }
        model = core.read_model(self._request["model"])
        model.reshape(list(np.load(self._request["images"], mmap_mode="r").shape[1:]))
        self._compiled = core.compile_model(model, "CPU", settings)
        self._infer = self._compiled.create_infer_request()

    def run(self, images: U8) -> F32:
        found = self._infer.infer({0: images}, share_inputs=True)
        return np.asarray(found[0], dtype=np.float32).reshape(-1)

    def about(self) -> dict[str, Any]:
        from qmdd.runtime.openvino_session import layers_of

        return {"kernels": sorted({layer.kernel for layer in layers_of(self._compiled)})}


class TorchPeer(Subject):
    """The twin or a built-in checkpoint in PyTorch, eager or compiled."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request

    def prepare(self) -> None:
        import torch

        torch.set_num_threads(self._request["threads"])
        torch.set_num_interop_threads(1)
        self._torch = torch

    def load(self) -> None:
        from qmdd.models.checkpoint import Checkpoint

        network = Checkpoint(self._request["checkpoint"]).detector().eval()
        if self._request["torch"] == "compile":
            network = self._torch.compile(network)
        self._network = network

    def run(self, images: U8) -> F32:
        with self._torch.no_grad():
            found: F32 = self._network(self._torch.from_numpy(images)).numpy()
        return found


def subject(request: dict[str, Any]) -> Subject:
    """The peer that is asked for."""
    if "torch" in request:
        return TorchPeer(request)
    return OpenvinoPeer(request) if "openvino" in request else OnnxPeer(request)


if __name__ == "__main__":
    sys.exit(main(subject))
