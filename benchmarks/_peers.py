"""The peers of ``peers.py``: each a file and how a process runs it, or why it is absent."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qmdd.calibration.train import save_detector
from qmdd.exporter.errors import ExportError
from qmdd.exporter.export import export_bundle
from qmdd.exporter.parity import verify_bundle
from qmdd.exporter.twin import twin_detector, twin_onnx
from qmdd.models import Detector, DetectorConfig
from qmdd.models.checkpoint import Checkpoint
from qmdd.models.zoo import builtin_checkpoint
from qmdd.runtime import native
from qmdd.runtime.bench_worker import COMMAND
from qmdd.runtime.bundle import MODEL, NATIVE_MODEL
from qmdd.runtime.errors import RuntimeFailure

CHILD = (sys.executable, str(Path(__file__).with_name("_peer_child.py")))
#: What all times are compared with.
TWIN = "ONNX Runtime, FP32 twin"
STATIC = "ONNX Runtime, quantize_static"


class AbsentError(Exception):
    """A peer that cannot be run here; the text says why."""


@dataclasses.dataclass
class Peer:
    """One row.

    Attributes:
        request, command: of its process.
        size: bytes of its file.
        export_seconds: from the network (or from the twin's file, where ``notes`` says so) to the
            file.
        exact: of ours, codes compared and found wrong.
        against: whose logits its own are compared with.
    """

    request: dict[str, Any]
    command: tuple[str, ...]
    size: int
    export_seconds: float | None = None
    notes: str = ""
    exact: dict[str, int] | None = None
    against: str = TWIN


class Workshop:
    """Makes the peers in a folder.

    Args:
        folder: where files go.
        images: uint8 ``[k, 1, 3, H, W]``: what peers are calibrated on, and later timed on.
        files: the same as image files, for parity.
        twin: checkpoint of a trained full-precision twin; default: random weights.
        brevitas: folder that Brevitas is installed in.
    """

    def __init__(
        self,
        folder: Path,
        images: np.ndarray,
        files: list[Path],
        twin: Path | None,
        brevitas: Path | None,
    ) -> None:
        self.folder, self.images, self.files, self.brevitas = folder, images, files, brevitas
        self.images_path = folder / "images.npy"
        np.save(self.images_path, images)
        network = Checkpoint(twin).detector().eval() if twin else _settled(images)
        self.twin_checkpoint = folder / "twin.safetensors"
        save_detector(network, self.twin_checkpoint)
        twin_onnx(twin_detector(DetectorConfig(width=0.25)))  # the first export imports, too
        started = time.perf_counter()
        self.twin_path = folder / "twin.onnx"
        self.twin_path.write_bytes(twin_onnx(network.eval()))
        self.twin_seconds = time.perf_counter() - started

    def makers(self) -> Iterator[tuple[str, Callable[[], Peer]]]:
        """Every peer's name and what makes it, the twin first."""
        yield TWIN, self._twin
        yield STATIC, self._static
        for hint in ("f32", "bf16"):
            name = {"f32": "FP32", "bf16": "bf16"}[hint]
            yield f"OpenVINO, {name} twin", lambda hint=hint: self._openvino(self.twin_path, hint)
        yield "OpenVINO, the file of quantize_static", self._openvino_static
        for bits in (8, 2):
            yield f"Brevitas QCDQ, {bits} bits", lambda bits=bits: self._brevitas(bits)
        for kind in ("eager", "compile"):
            yield f"PyTorch {kind}, FP32 twin", lambda kind=kind: self._torch(kind)
        yield "PyTorch eager, 2-bit source", self._source
        yield "qmdd onnx, 2 bits", lambda: self._ours(2, "onnx", "onnxruntime")
        yield "qmdd openvino, 2 bits", lambda: self._ours(2, "openvino", "openvino")
        for bits in (2, 3, 4):
            yield f"qmdd cpu, {bits} bits", lambda b=bits: self._ours(b, "cpu", "onnxruntime")
            yield f"qmdd native, {bits} bits", lambda b=bits: self._ours(b, "cpu", "native")
        for kernels in self._other_kernels():
            name = f"qmdd native, 2 bits, {kernels}"
            yield name, lambda kernels=kernels: self._with_kernels(kernels)

    def _twin(self) -> Peer:
        request = {"model": str(self.twin_path)}
        return Peer(request, CHILD, self.twin_path.stat().st_size, self.twin_seconds)

    def _static(self) -> Peer:
        started = time.perf_counter()
        path = _quantize_static(self.twin_path, self.folder, self.images)
        return Peer(
            {"model": str(path)},
            CHILD,
            path.stat().st_size,
            time.perf_counter() - started,
            "U8S8 per channel, MinMax; from the twin's file",
        )

    def _openvino(self, model: Path, hint: str, notes: str = "") -> Peer:
        _require("openvino")
        request = {"model": str(model), "openvino": hint}
        told = notes or "the ONNX file, its shape fixed"
        return Peer(request, CHILD, model.stat().st_size, None, told)

    def _openvino_static(self) -> Peer:
        path = self.folder / "static.onnx"
        if not path.exists():
            raise AbsentError("there is no file of quantize_static")
        notes = "its own quantisation of a trained network (NNCF) is not a part of OpenVINO"
        return self._openvino(path, "f32", notes)

    def _brevitas(self, bits: int) -> Peer:
        if self.brevitas is None:
            raise AbsentError("no --brevitas FOLDER was given (benchmarks/_brevitas.py says how)")
        path = self.folder / f"brevitas{bits}.onnx"
        script = Path(__file__).with_name("_brevitas.py")
        arguments = (self.twin_checkpoint, path, self.images_path, "--bits", bits)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *map(str, (script, *arguments))],
            capture_output=True,
            text=True,
            check=False,
            env=_environment(self.brevitas),
        )
        if done.returncode:
            raise AbsentError(f"Brevitas fails: {done.stderr.strip().splitlines()[-1][:200]}")
        notes = "quantised without training, stem and head in full precision"
        seconds = float(done.stdout.split()[-1])
        return Peer({"model": str(path)}, CHILD, path.stat().st_size, seconds, notes)

    def _torch(self, kind: str) -> Peer:
        if kind == "compile" and not (shutil.which("g++") or shutil.which("clang++")):
            raise AbsentError("torch.compile needs a C++ compiler")
        request = {"torch": kind, "checkpoint": str(self.twin_checkpoint)}
        notes = "the checkpoint's bytes" + "; export: its compilation" * (kind == "compile")
        return Peer(request, CHILD, self.twin_checkpoint.stat().st_size, None, notes)

    def _source(self) -> Peer:
        path = builtin_checkpoint("resnet23", 2)
        request = {"torch": "eager", "checkpoint": str(path)}
        return Peer(request, CHILD, path.stat().st_size, None, "what is exported", against="")

    def _other_kernels(self) -> tuple[str, ...]:
        """All but the fastest, which the other rows use."""
        return () if native.why_absent() else native.kernels()[1:-1]  # the last is the reference

    def _with_kernels(self, kernels: str) -> Peer:
        peer = self._ours(2, "cpu", "native")
        env = ("/usr/bin/env", f"{native.KERNELS_VARIABLE}={kernels}")
        return dataclasses.replace(peer, command=(*env, *peer.command))

    def _ours(self, bits: int, target: str, runtime: str) -> Peer:
        if runtime == "native" and native.why_absent():
            raise AbsentError(native.why_absent())
        output, checkpoint = self.folder / f"{target}{bits}", builtin_checkpoint("resnet23", bits)
        seconds = self.folder / f"{target}{bits}.seconds"
        try:
            if not output.exists():
                made = export_bundle(checkpoint, output, target=target, verify=False)
                seconds.write_text(str(made.seconds))
            tiers = ("deployed",)
            found = verify_bundle(output, images=self.files, tiers=tiers, runtime=runtime)
        except (ExportError, RuntimeFailure) as error:
            reason = str(error).partition(";")[0].replace(f"{output}: ", "")
            raise AbsentError(reason) from error
        tier = next(tier for tier in found.parity if tier.runtime == runtime)
        return Peer(
            {"bundle": str(output), "runtime": runtime},
            COMMAND,
            _model_path(output, runtime).stat().st_size,
            float(seconds.read_text()),
            exact={
                "codes": tier.codes_compared,
                "wrong": tier.wrong_codes,
                "flipped": tier.flipped_verdicts,
            },
            against="",
        )


def _model_path(bundle: Path, runtime: str) -> Path:
    return bundle / (NATIVE_MODEL if runtime == "native" else MODEL)


def _settled(images: np.ndarray) -> Detector:
    """A twin with random weights, batch-norm's statistics of ``images``, logits around zero."""
    network = twin_detector(DetectorConfig())
    pixels = torch.from_numpy(images[:, 0])
    with torch.no_grad():
        network.train()
        for _ in range(8):
            network(pixels)
        network.eval()
        lower, upper = network(pixels).sort().values[[(len(pixels) - 1) // 2, len(pixels) // 2]]
        network.head.fc.bias -= (lower + upper) / 2  # between two images, on none of them
    return network


def _quantize_static(twin: Path, folder: Path, images: np.ndarray) -> Path:
    """ONNX Runtime's own post-training quantisation of the twin's file."""
    import logging

    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    prepared, path = folder / "prepared.onnx", folder / "static.onnx"
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quant_pre_process(str(twin), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(path),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        logging.disable(logging.NOTSET)
    return path


def _require(package: str) -> None:
    from qmdd.runtime.openvino_session import require_openvino

    try:
        require_openvino() if package == "openvino" else importlib.import_module(package)
    except (ImportError, RuntimeFailure) as error:
        raise AbsentError(f"{package} is not installed") from error


def _environment(folder: Path) -> dict[str, str]:
    import os

    held = [str(folder.absolute()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(held)}
