"""A model in OpenVINO, on an x86 CPU, compiled so that it stays exact.

What OpenVINO would do by itself, and what is asked of it here (docs/openvino.md has the
measurements):

* On CPUs with AMX or AVX512_BF16 it computes floats in bfloat16: the precision is named, float32.
* Small float layers may be quantised on the fly: switched off.
* Subnormal numbers may be flushed to zero: switched off, thresholds compare subnormals too.
* *Snippets* fuse a product and a sum into one rounding (FMA): switched off. The rest of what would
  be rounded otherwise is kept apart in the graph itself, by
  :mod:`qmdd.exporter.passes.hold_fusions`.

Its low-precision transformations stay on: they are what turns DequantizeLinear, convolution,
DequantizeLinear into one INT8 kernel, and on integer codes with scale 1 that is exact.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from .errors import SessionError, not_installed
from .session import U8, Array, Session, one_line

_DEVICE = "CPU"
#: What OpenVINO appends to the name of a Gemm whose bias it takes apart.
_SPLIT_GEMM = "/WithoutBiases"
#: See the module's text; the names are OpenVINO's own.
EXACT: dict[str, Any] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "CPU_DENORMALS_OPTIMIZATION": False,
    "SNIPPETS_MODE": "DISABLE",
}


def require_openvino() -> None:
    """Refuse early where the package is missing: :class:`SessionError` says what to install.

    Whoever imports OpenVINO reports that to its makers over the network and gets a file in the home
    folder, unless the package that does so is missing: here it always is.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "not there"
    try:
        import_module("openvino")
    except ImportError as error:
        raise SessionError(not_installed("openvino", "openvino", error=error)) from error


class BuiltLayer(NamedTuple):
    """A convolution or matrix product as OpenVINO built it.

    Attributes:
        names: of the model's operators that it carries out.
        op: OpenVINO's name of the layer, ``Convolution`` or ``FullyConnected``.
        precision: in which it computes, such as ``i8``, ``u8`` or ``f32``.
        kernel: the implementation, such as ``brgconv_avx512_amx_i8``.
    """

    names: frozenset[str]
    op: str
    precision: str
    kernel: str


class OpenvinoSession(Session):
    """A :class:`~.session.Session` of OpenVINO.

    Args:
        model: the ONNX file, or its bytes.
        threads: default: one for each core this process may use.
        outputs: the graph outputs that :meth:`run` fetches; default: all.
        name: what errors call the model; default: its file's.

    Raises:
        SessionError: OpenVINO is missing or refuses the model, or it has another input.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int | None = None,
        outputs: list[str] | None = None,
        name: str | None = None,
    ) -> None:
        require_openvino()
        openvino: Any = import_module("openvino")
        frontend: Any = import_module("openvino.frontend")
        super().__init__(model, threads, name)
        settings = {
            **EXACT,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            "ENABLE_CPU_PINNING": False,
        }
        source = io.BytesIO(model) if isinstance(model, bytes) else str(model)
        try:
            # Its reader of ONNX alone: OpenVINO's general one tries every format that it knows.
            reader = frontend.FrontEndManager().load_by_framework("onnx")
            self._graph = reader.convert(reader.load(source))
            self._check_input([_describe(port) for port in self._graph.inputs])
            self._compiled = openvino.Core().compile_model(self._graph, _DEVICE, settings)
        except SessionError:
            raise
        except Exception as error:  # RuntimeError, and classes of its own for each stage
            raise SessionError(f"{self._name}: cannot be loaded: {one_line(error)}") from error
        names = [port.get_any_name() for port in self._compiled.outputs]
        self.outputs = self._choose(names, outputs)
        self._indices = [names.index(name) for name in self.outputs]

    @property
    def metadata(self) -> dict[str, str]:
        """As the base class says; OpenVINO keeps it with the graph."""
        held = dict(self._graph.get_rt_info().items()).get("framework", {})
        return {name: value.astype(str) for name, value in held.items()}

    def _fetch(self, images: U8) -> list[Array]:
        found = self._compiled({0: images})
        # Copies: the arrays are views of memory that the next run overwrites.
        return [found[index].copy() for index in self._indices]

    def chains(self) -> dict[str, tuple[str, ...]]:
        """What may be merged with each convolution and matrix product of the model as it was read.

        By its name: itself and the operators behind it, in order. OpenVINO names what it merges
        after any of its members.
        """
        found = {}
        for node in self._graph.get_ordered_ops():
            if node.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
                name = node.get_friendly_name()
                found[name.removesuffix(_SPLIT_GEMM)] = tuple(_chain(node))
        return found

    def layers(self) -> list[BuiltLayer]:
        """The convolutions and matrix products that will run."""
        return layers_of(self._compiled)


def layers_of(compiled: Any) -> list[BuiltLayer]:
    """The convolutions and matrix products of a model that OpenVINO compiled."""
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        about = node.get_rt_info()
        op = about["layerType"].astype(str)
        if op in ("Convolution", "FullyConnected", "MatMul"):
            names = about["originalLayersNames"].astype(str).split(",")
            found.append(
                BuiltLayer(
                    frozenset({node.get_friendly_name(), *names}),
                    op,
                    about["runtimePrecision"].astype(str).lower(),
                    about["primitiveType"].astype(str),
                )
            )
    return found


def _describe(port: Any) -> tuple[str, str, int]:
    kind = port.get_element_type().to_dtype()
    return port.get_any_name(), f"tensor({kind})", port.get_partial_shape().rank.get_length()


def _chain(node: Any) -> list[str]:
    """``node``'s name and those of the operators behind it, as long as each has one reader."""
    names = [node.get_friendly_name()]
    while node.get_output_size() == 1:
        readers = list(node.output(0).get_target_inputs())
        if len(readers) != 1:
            break
        node = readers[0].get_node()
        if node.get_type_name() not in ("Multiply", "Add"):
            break
        names.append(node.get_friendly_name())
    return names
