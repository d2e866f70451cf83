"""Which runtime runs a bundle: the one that its target was lowered for, or the one asked for."""

from __future__ import annotations

from collections.abc import Iterable

from . import native
from .bundle import MODEL, NATIVE_MODEL, Bundle
from .engine import check_engine, engine_folder, read_record, this_machine
from .errors import EngineError, SessionError
from .session import OnnxSession, Session
from .session_memory import bytes_for

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
#: TensorRT, where a bundle holds an engine.
TENSORRT = "tensorrt"
#: ONNX Runtime with our own operators, where a bundle has a model for them.
NATIVE = "native"
#: Executes models for FPGA flows; for verification only (it lives in the exporter's room).
QONNX = "qonnx"
#: Runtimes that score images; any of them can be asked for.
RUNTIMES = (ONNXRUNTIME, NATIVE, OPENVINO, TENSORRT)
#: Those whose sessions one thread at a time may run; several threads may run the others' at once.
_ONE_AT_A_TIME = (OPENVINO, TENSORRT)


def runtime_of(bundle: Bundle, asked: str | None = None) -> str:
    """The runtime for ``bundle``: ``asked``, or by default its own.

    A bundle with a model for the native operators runs there, if they are built; one with an engine
    runs in TensorRT, where that and a GPU are.

    Raises:
        SessionError: a runtime that there is not, or a bundle that none of them can run.
        EngineError: an engine for another machine than this one, which has TensorRT and a GPU; or
            TensorRT is asked for, and there is no engine.
    """
    if bundle.runtime not in RUNTIMES:
        raise SessionError(
            f"{bundle.path}: lowered for {bundle.target}, which scores no images here; export the "
            "checkpoint with --target onnx for that (qmdd verify runs this one)"
        )
    if asked is not None and asked not in RUNTIMES:
        raise SessionError(f"no runtime {asked!r}; there are {', '.join(RUNTIMES)}")
    if asked is None and bundle.native_path is not None and native.library_path() is not None:
        return NATIVE
    if asked in (None, TENSORRT) and _engine_runs(bundle, asked):
        return TENSORRT
    if asked == NATIVE and bundle.native_path is None:
        raise SessionError(
            f"{bundle.path}: has no model for the native operators; export the checkpoint with "
            "--target cpu"
        )
    return asked or bundle.runtime


def _engine_runs(bundle: Bundle, asked: str | None) -> bool:
    """Whether the bundle's engine is what runs here.

    Raises:
        EngineError: it is asked for, and there is none; or it is for another machine, even where
            it was not asked for: on a device, what took its place would be slow and say nothing.
    """
    if engine_folder(bundle) is None:
        if asked is None:
            return False
        raise EngineError(
            f"{bundle.path}: holds no engine; run qmdd build first (its ONNX model runs by "
            "--runtime onnxruntime)"
        )
    record = read_record(bundle)
    try:
        machine = this_machine(record.backend)
    except EngineError:
        if asked is None:
            return False  # no TensorRT, or no GPU: not a machine for any engine
        # An engine of another version is one whether there is a GPU or not.
        check_engine(bundle, this_machine(record.backend, gpu=False))
        raise
    check_engine(bundle, machine)
    return True


def sides_for(bundle: Bundle, runtimes: Iterable[str]) -> dict[str, int]:
    """What :func:`~.preprocess.prepare` takes, so that all of these ``runtimes`` run the result.

    An engine takes the sizes that it was built for: larger images are cropped to them.
    """
    sides = bundle.sides
    if TENSORRT in runtimes:
        profile = read_record(bundle).profile
        low, high = max(profile["min"][2:]), min(profile["max"][2:])
        sides["min_side"] = max(sides["min_side"], low)
        sides["max_side"] = min(sides["max_side"], high)
    return sides


def runs_concurrently(bundle: Bundle, asked: str | None = None) -> bool:
    """Whether several threads may run one session of the runtime for ``bundle`` at once.

    Raises:
        SessionError: as :func:`runtime_of`.
    """
    return runtime_of(bundle, asked) not in _ONE_AT_A_TIME


def open_session(
    bundle: Bundle,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    outputs: list[str] | None = None,
    memory: int | None = None,
) -> Session:
    """A session over the bundle's model.

    Args:
        runtime: one of :data:`RUNTIMES`; default: the one that the bundle was made for.
        threads: default: one for each core this process may use.
        outputs: those that are fetched; default: all.
        memory: see :class:`~.session.OnnxSession`, default: for an image
            (:func:`~.session_memory.bytes_for`); other runtimes take what they need.

    Raises:
        SessionError: the runtime is missing or refuses the model. EngineError: see
            :func:`runtime_of`. BundleError: the model has changed since the bundle was opened.
    """
    chosen = runtime_of(bundle, runtime)
    if chosen == TENSORRT:
        from .engine_session import EngineSession

        return EngineSession(bundle, outputs=outputs)
    if chosen == OPENVINO:
        from .openvino_session import OpenvinoSession

        return OpenvinoSession(
            bundle.read(MODEL), threads=threads, outputs=outputs, name=str(bundle.model_path)
        )
    library, model, path = None, MODEL, bundle.model_path
    if chosen == NATIVE and bundle.native_path is not None:
        library, model, path = native.require_library(), NATIVE_MODEL, bundle.native_path
    return OnnxSession(
        bundle.read(model),
        threads=threads,
        outputs=outputs,
        library=library,
        name=str(path),
        memory=bytes_for() if memory is None else memory,
    )
