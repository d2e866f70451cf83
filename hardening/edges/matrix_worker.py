"""One part of the matrix, in whatever environment: ``python -m hardening.edges.matrix_worker JOB``.

``JOB`` is a JSON file; what comes out is a JSON object a line, one for each cell. It needs numpy,
the runtime room and the runtime that the job names, and no torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qmdd.runtime import native
from qmdd.runtime.errors import RuntimeFailure
from qmdd.runtime.probes import SUFFIX, are_last, channels_first

#: ONNX Runtime's optimisation levels, by the names used here.
LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class _OnnxRuntime:
    """A session at a level; the other settings are those of ``qmdd.runtime.session``."""

    def __init__(self, model: bytes, level: str, threads: int, *, with_library: bool) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, LEVELS[level]
        )
        options.log_severity_level = 3
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_mem_pattern = not with_library
        if with_library:
            options.register_custom_ops_library(str(native.require_library()))
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        self.last = are_last(dict(self._session.get_modelmeta().custom_metadata_map))

    def run(self, images: np.ndarray) -> dict[str, Any]:
        found = self._session.run(None, {"image": images})
        return dict(zip(self._names, found, strict=True))


class _Other:
    """OpenVINO or QONNX, by the project's own session."""

    def __init__(self, runtime: str, model: bytes, threads: int, outputs: list[str]) -> None:
        if runtime == "openvino":
            from qmdd.runtime.openvino_session import OpenvinoSession

            self._session: Any = OpenvinoSession(model, threads=threads, outputs=outputs)
        else:
            from qmdd.exporter.qonnx_session import QonnxSession

            self._session = QonnxSession(model, outputs=outputs)
        self.last = are_last(self._session.metadata)

    def run(self, images: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = self._session.run(images)
        return found


def _session(job: dict[str, Any], model: bytes, level: str, threads: int) -> Any:
    runtime = job["runtime"]
    if runtime in ("onnxruntime", "native"):
        return _OnnxRuntime(model, level, threads, with_library=runtime == "native")
    return _Other(runtime, model, threads, job["outputs"])


def cells(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The job's cells, each with what was found or why not."""
    model = Path(job["model"]).read_bytes()
    for level in job["levels"]:
        for threads in job["threads"]:
            named = {"level": level, "threads": threads}
            try:
                session = _session(job, model, level, threads)
            except (ImportError, RuntimeError, RuntimeFailure, ValueError) as error:
                yield {**named, "failed": f"cannot be loaded: {_line(error)}"}
                continue
            for name, path in job["sets"].items():
                with np.load(path, allow_pickle=False) as held:
                    arrays = {key: held[key] for key in held.files}
                for batch in job["batches"]:
                    cell = {**named, "size": name, "batch": batch}
                    try:
                        yield {**cell, **_compared(session, arrays, batch, job["images"])}
                    except Exception as error:  # noqa: BLE001 - runtimes' errors share no base
                        yield {**cell, "failed": _line(error)}


def _compared(
    session: Any, arrays: dict[str, np.ndarray], batch: int, most: int | None
) -> dict[str, Any]:
    images = arrays["images"][:most]
    layers = [key.removeprefix("codes:") for key in arrays if key.startswith("codes:")]
    codes = wrong = flipped = 0
    largest = 0.0
    for first in range(0, len(images), batch):
        part = slice(first, min(first + batch, len(images)))
        outputs = session.run(np.ascontiguousarray(images[part]))
        if session.last:
            outputs = channels_first(outputs)
        logits = arrays["logits"][part]
        largest = float(np.max([largest, np.abs(logits - outputs["logit"]).max()]))
        flipped += int(((logits > 0) != (outputs["logit"] > 0)).sum())
        for layer in layers:
            ours, theirs = arrays[f"codes:{layer}"][part], outputs[layer + SUFFIX]
            if ours.shape != theirs.shape:
                raise ValueError(f"{layer}: shape {list(theirs.shape)}, not {list(ours.shape)}")
            codes += ours.size
            wrong += int((ours != theirs).sum())
    return {"images": len(images), "codes": codes, "wrong": wrong, "flipped": flipped,
            "logit": largest}  # fmt: skip


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def main() -> None:
    """Run the job that the command line names."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for cell in cells(job):
        sys.stdout.write(json.dumps(cell) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
