"""Which runtime runs a bundle: the one that its target was lowered for, or the one asked for."""

from __future__ import annotations

from . import native
from .bundle import Bundle
from .errors import SessionError
from .session import OnnxSession, Session

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
#: ONNX Runtime with our own operators, where a bundle has a model for them.
NATIVE = "native"
#: Executes models for FPGA flows; for verification only (it lives in the exporter's room).
QONNX = "qonnx"
#: Runtimes that score images; any of them can be asked for.
RUNTIMES = (ONNXRUNTIME, NATIVE, OPENVINO)
#: Those whose sessions one thread at a time may run; several threads may run the others' at once.
_ONE_AT_A_TIME = (OPENVINO,)


def runtime_of(bundle: Bundle, asked: str | None = None) -> str:
    """The runtime for ``bundle``: ``asked``, or by default its own.

    A bundle with a model for the native operators runs there, if they are built.

    Raises:
        SessionError: a runtime that there is not, or a bundle that none of them can run.
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
    if asked == NATIVE and bundle.native_path is None:
        raise SessionError(
            f"{bundle.path}: has no model for the native operators; export the checkpoint with "
            "--target cpu"
        )
    return asked or bundle.runtime


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
) -> Session:
    """A session over the bundle's model.

    Args:
        runtime: one of :data:`RUNTIMES`; default: the one that the bundle was made for.
        threads: default: one for each core this process may use.
        outputs: those that are fetched; default: all.

    Raises:
        SessionError: the runtime is missing or refuses the model.
    """
    chosen = runtime_of(bundle, runtime)
    if chosen == OPENVINO:
        from .openvino_session import OpenvinoSession

        return OpenvinoSession(bundle.model_path, threads=threads, outputs=outputs)
    if chosen == NATIVE and bundle.native_path is not None:
        library = native.require_library()
        return OnnxSession(bundle.native_path, threads=threads, outputs=outputs, library=library)
    return OnnxSession(bundle.model_path, threads=threads, outputs=outputs)
