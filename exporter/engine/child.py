"""The builder's process: ``python -m qmdd.exporter.engine.child EVENTS_FD``.

A :class:`~.request.BuildRequest` comes in as JSON on standard input; events go out as JSON lines on
the file descriptor that is named, because TensorRT itself may print on standard output and error.
What is built lies in the request's folder. TensorRT may crash, abort or hang: nothing of that
reaches the process that started this one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...runtime.engine import ENGINE, LOG
from ...runtime.errors import RuntimeFailure
from ...runtime.process import die_with_parent, peak_memory
from ..errors import BuildError, ExportError
from .backends import Backend, find_backend
from .progress import Progress
from .request import BuildRequest

#: Everything that TensorRT says; kept only where a build fails.
VERBOSE_LOG = "verbose.log"
RESULT = "result.json"

_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "buffering": 1}
_IMPORTING = "Parsing node: "
_TOTALS = {"Total Weights Memory": "weights", "Total Activation Memory": "activations"}


class Listener:
    """Keeps what TensorRT logs: all of it in one file, without details in another.

    Attributes:
        messages: detailed texts, one of which may hold the layer table.
        warnings: ``severity``, ``text`` and the ONNX ``node`` that was being read, if one was.
        sizes: bytes of weights and activations, where the log tells them.
    """

    def __init__(self, folder: Path) -> None:
        self.messages: list[str] = []
        self.warnings: list[dict[str, str]] = []
        self.sizes: dict[str, int] = {}
        self._node = ""
        # Written line by line, so that a crash keeps what was said before it.
        self._all = (folder / VERBOSE_LOG).open("w", **_TEXT)
        self._brief = (folder / LOG).open("w", **_TEXT)

    def hear(self, severity: str, text: str) -> None:
        """One message; ``severity`` is TensorRT's word, such as ``WARNING``."""
        line = f"{severity}: {text}\n"
        self._all.write(line)
        if severity == "VERBOSE":
            self.messages.append(text)
            if text.startswith(_IMPORTING):
                self._node = text.removeprefix(_IMPORTING).partition(" [")[0]
            return
        self._brief.write(line)
        name, _, rest = text.partition(":")
        if name in _TOTALS and rest.split()[:1] and rest.split()[0].isdigit():
            self.sizes[_TOTALS[name]] = int(rest.split()[0])
        if severity != "INFO":
            self.warnings.append({"severity": severity, "text": text, "node": self._node})

    def parsed(self) -> None:
        """From here on no message is about a node."""
        self._node = ""

    def close(self) -> None:
        """Close both files."""
        self._all.close()
        self._brief.close()


def build(request: BuildRequest, tell: Any) -> dict[str, Any]:
    """Build the engine into the request's folder; what is known of it.

    Args:
        request: what to build.
        tell: called with ``(what is being done, how much of 1000 is done)``.

    Raises:
        BuildError: TensorRT refuses, with its own words. EngineError: it is not installed.
    """
    clock = [time.perf_counter()]
    backend = find_backend(request.backend, request.versions)
    capabilities = backend.capabilities(request.compute_capabilities)
    folder = Path(request.folder)
    listener = Listener(folder)
    try:
        trt, logger = backend.api, _logger(backend.api, listener)
        builder = trt.Builder(logger)
        network = builder.create_network(backend.network_flags())
        clock.append(time.perf_counter())
        tell("reading the model", 0)
        parser = _parse(backend, network, logger, request)
        listener.parsed()
        config = _config(backend, builder, capabilities, request)
        monitor = _watch(trt, config, Progress(tell))
        clock.append(time.perf_counter())
        plan = builder.build_serialized_network(network, config)
        clock.append(time.perf_counter())
        del monitor, parser
        if plan is None:
            raise BuildError(f"TensorRT builds no engine: {_last_error(listener)}")
        with open(folder / ENGINE, "wb") as stream:
            stream.write(plan)
        backend.check(folder / ENGINE)
        layers = backend.layers(plan, logger, listener.messages)
    finally:
        listener.close()
    stages = ("load", "read", "build")
    return {
        "version": backend.version,
        "systems": backend.systems,
        "compute_capabilities": capabilities,
        "device": backend.device(),
        "seconds": {
            name: round(after - before, 3)
            for name, (before, after) in zip(stages, pairwise(clock), strict=True)
        },
        "sizes": {"weights": 0, "activations": 0, **listener.sizes},
        "warnings": listener.warnings,
        "layers": [layer.to_dict() for layer in layers],
        "peak_memory": peak_memory(),
    }


def _logger(trt: Any, listener: Listener) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of a module that ships no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            listener.hear(str(severity).rpartition(".")[2], text)

    return Logger()


def _parse(backend: Backend, network: Any, logger: Any, request: BuildRequest) -> Any:
    """Read the model; the parser must live as long as the network."""
    parser = backend.api.OnnxParser(network, logger)
    if not parser.parse(Path(request.model).read_bytes()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = "; ".join(" ".join(error.desc().split()) for error in errors) or "no reason given"
        raise BuildError(f"{request.model}: TensorRT cannot read it: {said}")
    if request.probes:
        _show_codes(backend.api, network)
    else:
        _check_network(backend.api, network, request.model)
    return parser


def _show_codes(trt: Any, network: Any) -> None:
    """Further outputs come in rows, as the host reads them."""
    for index in range(network.num_outputs):
        network.get_output(index).allowed_formats = 1 << int(trt.TensorFormat.LINEAR)


def _check_network(trt: Any, network: Any, model: str) -> None:
    """Only a detector of ours is built: names and types of input and output are the contract."""
    found = [
        (tensor.name, tensor.dtype, len(tensor.shape))
        for count, get in (
            (network.num_inputs, network.get_input),
            (network.num_outputs, network.get_output),
        )
        for tensor in map(get, range(count))
    ]
    if found != [("image", trt.DataType.UINT8, 4), ("logit", trt.DataType.FLOAT, 1)]:
        told = ", ".join(f"{name}: {dtype} of rank {rank}" for name, dtype, rank in found)
        raise BuildError(
            f"{model}: not a detector of qmdd: it must take image (uint8, rank 4) and give logit "
            f"(float32, rank 1); it has {told}"
        )


def _config(
    backend: Backend, builder: Any, capabilities: tuple[str, ...], request: BuildRequest
) -> Any:
    trt = backend.api
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    backend.configure(config, capabilities)
    shapes = builder.create_optimization_profile()
    shapes.set_shape("image", request.profile.min, request.profile.opt, request.profile.max)
    if config.add_optimization_profile(shapes) < 0:
        raise BuildError(f"TensorRT does not take the shapes {request.profile}")
    return config


def _watch(trt: Any, config: Any, progress: Progress) -> Any:
    """Let TensorRT report its progress, where it can; the monitor must live through the build."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            progress.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            progress.step(name, step)
            return True

        def phase_finish(self, name: str) -> None:
            progress.finish(name)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def _last_error(listener: Listener) -> str:
    errors = [entry["text"] for entry in listener.warnings if "ERROR" in entry["severity"]]
    return " ".join(errors[-1].split()) if errors else "no reason given"


def main() -> int:
    """Entry point; 0 where an engine was built, 1 with an ``error`` event where none was."""
    die_with_parent()
    events = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1)

    def send(**event: object) -> None:
        events.write(json.dumps(event) + "\n")

    request = BuildRequest.from_json(sys.stdin.readline())
    try:
        result = build(request, lambda what, done: send(what=what, done=done))
    except (ExportError, RuntimeFailure) as error:
        send(error=str(error))
        return 1
    except MemoryError:
        send(error="the builder ran out of memory; use a smaller --workspace, --batch or --side")
        return 1
    (Path(request.folder) / RESULT).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
