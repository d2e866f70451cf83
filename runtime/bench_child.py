"""A process that times one model: ``python -m qmdd.runtime.bench_child EVENTS_FD``.

Threads, caches of a runtime and memory are a process's own: each model, number of threads and batch
gets a fresh one. JSON lines come in on standard input and go out on the file descriptor that is
named, because a runtime may print on standard output. The first line says what to load and where
the images lie (an ``.npy`` file, uint8 ``[k, batch, 3, H, W]``); each further one asks for so many
runs. At the end of the input the process says how much memory it had at most, until it had loaded
and from then on.
"""

from __future__ import annotations

import abc
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .errors import RuntimeFailure, SessionError, not_installed
from .machine import version_of
from .process import die_with_parent, peak_memory, reset_peak, resident_memory
from .session import OnnxSession, Session
from .session_memory import bytes_for

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

#: Runs before the first that counts: the first one allocates, the next two still differ.
WARM_UP = 3


class Subject(abc.ABC):
    """What is timed. :meth:`prepare` imports, :meth:`load` reads the model, :meth:`run` runs it."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Import the libraries; their time and memory are not the model's."""

    @abc.abstractmethod
    def load(self) -> None:
        """Make the model ready to run."""

    @abc.abstractmethod
    def run(self, images: U8) -> F32:
        """Logits ``[N]`` of uint8 ``[N, 3, H, W]``."""

    def about(self) -> dict[str, Any]:
        """What can be said of it after it has run, as plain data."""
        return {}


class SessionSubject(Subject):
    """A bundle in one of the runtimes, or a bare ONNX file (the twin) in ONNX Runtime.

    Args:
        request: ``threads``, and ``bundle`` with ``runtime``, or ``model``.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._session: Session
        self._memory: int

    def prepare(self) -> None:
        _, count, _, *sides = np.load(self._request["images"], mmap_mode="r").shape
        self._memory = bytes_for(count, sides[0] * sides[1])
        if self._request.get("runtime") == "openvino":
            from .openvino_session import require_openvino

            require_openvino()
            return
        if self._request.get("runtime") == "tensorrt":
            self._tensorrt()
            return
        try:
            import_module("onnxruntime")
        except ImportError as error:
            raise SessionError(not_installed("onnxruntime", error=error)) from error

    def load(self) -> None:
        threads = int(self._request["threads"])
        if "model" in self._request:
            path = Path(self._request["model"])
            self._session = OnnxSession(
                path, threads=threads, outputs=["logit"], memory=self._memory
            )
            return

        from .bundle import Bundle
        from .sessions import open_session

        # Its hashes were compared before this process was started.
        bundle = Bundle.open(self._request["bundle"], check=False)
        runtime = self._request["runtime"]
        self._session = open_session(
            bundle, runtime=runtime, threads=threads, outputs=["logit"], memory=self._memory
        )

    def run(self, images: U8) -> F32:
        return self._session.logits(images)

    def _tensorrt(self) -> Any:
        """The module that runs the bundle's engine."""
        from .bundle import Bundle
        from .engine import read_record
        from .tensorrt_api import load_tensorrt

        bundle = Bundle.open(self._request["bundle"], check=False)
        return load_tensorrt(read_record(bundle).backend)

    def about(self) -> dict[str, Any]:
        """``version`` of the runtime, its ``kernel``, and the file's ``metadata``."""
        return {
            "version": self._version(),
            "kernel": self._kernel(),
            "metadata": self._session.metadata if isinstance(self._session, OnnxSession) else {},
        }

    def _version(self) -> str:
        runtime = self._request.get("runtime")
        if runtime == "tensorrt":
            return str(self._tensorrt().__version__)
        return version_of("openvino" if runtime == "openvino" else "onnxruntime")

    def _kernel(self) -> str:
        """What multiplies the codes, as the runtime itself calls it; empty if it does not say."""
        if self._request.get("runtime") == "native":
            from .native import chosen_kernels

            return chosen_kernels()
        layers = getattr(self._session, "layers", None)
        if layers is None:
            return ""
        usual = Counter(layer.kernel for layer in layers()).most_common(1)
        return str(usual[0][0]) if usual else ""


def serve(subject: Subject, request: dict[str, Any], lines: IO[str], events: IO[str]) -> None:
    """Load, answer each line, say at the end what memory it took."""

    def send(**event: object) -> None:
        events.write(json.dumps(event) + "\n")

    images: U8 = np.load(request["images"])
    started = time.perf_counter()
    subject.prepare()
    imported = time.perf_counter()
    base = resident_memory()
    loading, used = time.perf_counter(), time.process_time()
    subject.load()
    loaded, spent = time.perf_counter(), time.process_time() - used
    held, load_peak = resident_memory(), peak_memory()
    reset_peak()
    subject.run(images[0])
    first = time.perf_counter()
    for index in range(WARM_UP - 1):
        subject.run(images[(index + 1) % len(images)])
    send(
        import_seconds=imported - started,
        load_seconds=loaded - loading,
        load_cpu_seconds=spent,
        first_seconds=first - loaded,
        base_memory=base,
        loaded_memory=held,
        about=subject.about(),
        logits=[float(value) for batch in images for value in subject.run(batch)],
    )
    gc.disable()
    for line in lines:
        wall, cpu = timed(subject, images, int(json.loads(line)["run"]))
        send(wall=wall, cpu=cpu)
    send(load_peak_memory=load_peak, run_peak_memory=peak_memory())


def timed(subject: Subject, images: U8, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of the clock, and of the processor over all threads, of each of ``runs`` runs.

    One run before them does not count: it finds another process's data in the cache, and its own
    threads asleep.
    """
    wall, cpu = [], []
    for index in range(runs + 1):
        batch = images[index % len(images)]
        used, started = time.process_time(), time.perf_counter()
        subject.run(batch)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return wall[1:], cpu[1:]


def main(make: Callable[[dict[str, Any]], Subject] = SessionSubject) -> int:
    """Entry point; 0, or 1 after an ``error`` event that says what is wrong."""
    die_with_parent()
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as events:
        request = json.loads(sys.stdin.readline())
        try:
            serve(make(request), request, sys.stdin, events)
        except RuntimeFailure as error:
            events.write(json.dumps({"error": str(error)}) + "\n")
            return 1
        except MemoryError:
            error_text = "not enough memory; use a smaller --batch or --size"
            events.write(json.dumps({"error": error_text}) + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
