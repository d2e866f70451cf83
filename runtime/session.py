"""A model that is run: raw pixels in, named arrays out. On the CPU, by ONNX Runtime."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .contract import INPUT
from .errors import BundleError, SessionError, not_installed
from .load_memory import bytes_to_load, limited, was_refused
from .machine import usable_cores
from .onnx_limits import check_model
from .session_memory import VARIABLE, Pool, asked_bytes, bounded, default_bound, was_exceeded

if TYPE_CHECKING:
    from typing_extensions import Self

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]

#: ONNX Runtime's severities: 3 reports errors, 4 fatal ones. Its errors are raised too, and a user
#: gets one line, ours.
_FATAL_ONLY = 4


class Session(abc.ABC):
    """One session over a model whose input is ``image``, uint8 ``[N, 3, H, W]``.

    A runtime of its own loads the model in ``__init__``, sets :attr:`outputs`, and implements
    :meth:`_fetch`.

    Attributes:
        outputs: names of the outputs that :meth:`run` fetches, in order.
        concurrent: whether several threads may call :meth:`run` at once.
        reads_onnx: what it loads is ONNX, and is held to :mod:`.onnx_limits` first.
    """

    outputs: tuple[str, ...]
    concurrent: bool = False
    reads_onnx: bool = True

    def __init__(self, model: bytes | Path, threads: int | None, name: str | None = None) -> None:
        if threads is not None and threads < 1:
            raise SessionError(f"threads={threads} must be at least 1")
        self._name = name or ("model" if isinstance(model, bytes) else str(model))
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise SessionError(f"{self._name}: no such model file")
        try:
            if self.reads_onnx:
                check_model(model, self._name)
        except BundleError as error:
            raise SessionError(str(error)) from error
        except OSError as error:
            raise SessionError(f"{self._name}: cannot be read: {error.strerror}") from error
        #: Named even by default: left to themselves, runtimes pin threads to cores, and complain
        #: on stderr where a container does not give them all.
        self._threads = threads or usable_cores()

    @property
    def metadata(self) -> dict[str, str]:
        """What the file's maker wrote about it: ONNX's ``metadata_props``."""
        return {}

    @abc.abstractmethod
    def _fetch(self, images: U8) -> list[Array]:
        """The chosen outputs, in order; raises whatever the runtime raises."""

    def _check_input(self, inputs: list[tuple[str, str, int]]) -> None:
        """Refuse a model whose inputs, ``(name, type, rank)``, are not the contract's."""
        if inputs != [(INPUT["name"], f"tensor({INPUT['dtype']})", len(INPUT["layout"]))]:
            found = ", ".join(f"{name}: {kind} of rank {rank}" for name, kind, rank in inputs)
            raise SessionError(
                f"{self._name}: must have one input, image: tensor(uint8) of rank 4; it has "
                f"{found or 'none'}"
            )

    def _choose(self, known: list[str], wanted: list[str] | None) -> tuple[str, ...]:
        missing = [name for name in wanted or () if name not in known]
        if missing:
            raise SessionError(
                f"{self._name}: has no output {', '.join(missing)}; outputs: {', '.join(known)}"
            )
        return tuple(known if wanted is None else wanted)

    def close(self) -> None:  # noqa: B027 - most sessions hold nothing else
        """Give back what it holds beside this process's memory; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def run(self, images: U8) -> dict[str, Array]:
        """Arrays of the chosen outputs, by name, for ``images`` uint8 ``[N, 3, H, W]``.

        Raises:
            SessionError: ``images`` is something else, or the runtime fails.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise SessionError(
                "images must be uint8 [count, 3, height, width], got "
                f"{images.dtype} {list(images.shape)}"
            )
        try:
            found = self._fetch(np.ascontiguousarray(images))
        except SessionError:
            raise
        except Exception as error:  # runtimes' exceptions share no base of their own
            raise SessionError(
                f"{self._name}: cannot run on {list(images.shape)}: {one_line(error)}"
            ) from error
        return dict(zip(self.outputs, (np.asarray(array) for array in found), strict=True))

    def logits(self, images: U8) -> F32:
        """Logits float32 ``[N]`` of ``images`` uint8 ``[N, 3, H, W]``; positive leans to fake.

        Raises:
            SessionError: as :meth:`run`; or ``logit`` is not fetched, or not float32 ``[N]``.
        """
        if "logit" not in self.outputs:
            raise SessionError(f"{self._name}: logit is not among its outputs {self.outputs}")
        logit = self.run(images)["logit"]
        if logit.dtype != np.float32 or logit.shape != images.shape[:1]:
            raise SessionError(
                f"{self._name}: logit must be float32 {list(images.shape[:1])}, got "
                f"{logit.dtype} {list(logit.shape)}"
            )
        return logit.astype(np.float32, copy=False)


class OnnxSession(Session):
    """A :class:`Session` of ONNX Runtime.

    Args:
        model: the file, or its bytes.
        optimize: ONNX Runtime's graph optimiser, all of it or (the strict tier) none.
        threads: threads inside an operator; default: one for each core this process may use.
        outputs: the graph outputs that :meth:`run` fetches; default: all.
        library: of further operators (:mod:`.native`).
        memory: most bytes of values that it may hold at once, whatever the model asks for, or the
            pool that it shares with other sessions; 0 for no bound; default, for models of our own
            making: half of the machine's memory.
        shrink: give the memory back to the system after each run, for another session to have.
        name: what errors call the model; default: its file's.

    Raises:
        SessionError: ONNX Runtime is missing or refuses the model, or it has another input.
    """

    concurrent = True

    def __init__(
        self,
        model: bytes | Path,
        *,
        optimize: bool = True,
        threads: int | None = None,
        outputs: list[str] | None = None,
        library: Path | None = None,
        memory: int | Pool | None = None,
        shrink: bool = False,
        name: str | None = None,
    ) -> None:
        try:
            ort: Any = import_module("onnxruntime")  # it ships no types
        except ImportError as error:
            raise SessionError(not_installed("onnxruntime", error=error)) from error

        super().__init__(model, threads, name)
        options, level = ort.SessionOptions(), ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        )
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Planning memory for each size of image saves 5 % of the time where there are many small
        # operators. With our own there are few: it saves nothing, and scatters memory.
        # Planned memory comes on top of what the runs before it hold.
        options.enable_mem_pattern = library is None and not shrink
        pool = default_bound() if memory is None else memory
        self._most = pool.most if isinstance(pool, Pool) else pool
        self._advice = (
            "half of this machine's memory: use fewer or smaller images at a time"
            if memory is None
            else f"if you trust the model, allow each image more: {VARIABLE}=1024 (MiB)"
        )
        self._run_options = ort.RunOptions()
        if shrink:
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with bounded(ort, options, pool), self._loading(model):
            if library is not None:
                options.register_custom_ops_library(str(library))
            self._session = ort.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
                # Of some failures it would print on stdout, and try the same once more.
                enable_fallback=0,
            )
        self._check_input([(i.name, i.type, len(i.shape)) for i in self._session.get_inputs()])
        self.outputs = self._choose([o.name for o in self._session.get_outputs()], outputs)

    @contextmanager
    def _loading(self, model: bytes | Path) -> Iterator[None]:
        """Inside, a library loads ``model`` within bounds; what it raises is a SessionError."""
        size = len(model) if isinstance(model, bytes) else Path(model).stat().st_size
        most = bytes_to_load(size, asked_bytes())
        try:
            with limited(most, self._threads):
                yield
        except SessionError:
            raise
        except Exception as error:  # runtimes' exceptions share no base of their own
            if was_refused(error):
                raise SessionError(
                    f"{self._name}: cannot be loaded within {most >> 20} MiB of memory; free "
                    f"some, or if you trust the model, allow it more: {VARIABLE}=2048 (MiB)"
                ) from error
            raise SessionError(f"{self._name}: cannot be loaded: {one_line(error)}") from error

    def _fetch(self, images: U8) -> list[Array]:
        try:
            fed = {"image": images}
            return list(self._session.run(list(self.outputs), fed, self._run_options))
        except Exception as error:
            if was_exceeded(error):
                raise SessionError(
                    f"{self._name}: needs more than {self._most >> 20} MiB for "
                    f"{list(images.shape)}; {self._advice}"
                ) from error
            raise

    @property
    def metadata(self) -> dict[str, str]:
        """As the base class says."""
        return dict(self._session.get_modelmeta().custom_metadata_map)


def one_line(error: Exception) -> str:
    """What a runtime's exception says, on one line of at most 400 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:397] + "..."
