"""The layers of a built engine, one table whichever TensorRT and API told of them.

TensorRT-RTX cannot open an engine where there is no GPU, but its builder logs the same table that
the inspector would give, in one message that begins with ``Layers:``. TensorRT's inspector gives
JSON; before version 11 a tensor's type stands inside its format ("Thirty-two wide channel
vectorized row major Int8 format"), later in a field of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from ..errors import BuildError

#: The builder's message that holds the table (TensorRT-RTX).
HEADING = "Layers:"

#: Bits of an element, by our names of the types.
BITS = {
    "float32": 32, "float16": 16, "bfloat16": 16, "int64": 64, "int32": 32, "int8": 8, "uint8": 8,
    "bool": 8, "float8": 8, "int4": 4, "float4": 4,
}  # fmt: skip

#: TensorRT's words for types, longest first where one is a part of another; the last six appear in
#: format descriptions only.
_TYPES = (
    ("bfloat16", "bfloat16"),
    ("bf16", "bfloat16"),
    ("half", "float16"),
    ("fp16", "float16"),
    ("uint8", "uint8"),
    ("int64", "int64"),
    ("int32", "int32"),
    ("int8", "int8"),
    ("int4", "int4"),
    ("fp8", "float8"),
    ("e4m3", "float8"),
    ("fp4", "float4"),
    ("bool", "bool"),
    ("float", "float32"),
    ("fp32", "float32"),
)
#: Kernels of nothing but these (TensorRT-RTX names them by their operations) only move data.
_MOVES = frozenset({"Move", "Tran", "Resh", "Cast", "Conc", "Repl", "Slic", "Copy", "Pad"})
_CONTROLS = ("shape_call", "signal", "wait")
_REFORMATS = ("reformat", "noop", "reorder", "shuffle", "copy")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """``dims`` hold -1 where the size is free; ``dtype`` is one of :data:`BITS` or empty."""

    name: str
    dims: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Their number, 0 where a size is free."""
        return max(0, math.prod(self.dims)) if -1 not in self.dims else 0

    @property
    def bytes(self) -> int:
        """Packed size, 0 where a size is free."""
        return -(-self.elements * BITS.get(self.dtype, 0) // 8)


@dataclasses.dataclass(frozen=True)
class EngineLayer:
    """One step of an engine.

    Attributes:
        name: TensorRT's.
        type: TensorRT's kind, such as ``correlation`` or ``CaskConvolution``.
        kind: ours: ``convolution``, ``product`` (of matrices), ``unpack`` (makes weights from
            constants at every run), ``move`` (copies, casts, transposes), ``control`` (sizes of
            tensors, one stream waiting for another) or ``kernel``.
        onnx: names of the ONNX nodes that went into it.
        inputs, constants, outputs: its tensors.
    """

    name: str
    type: str
    kind: str
    onnx: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def inserted(self) -> bool:
        """Whether no node of the model asked for it."""
        return self.kind != "control" and not self.onnx

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> EngineLayer:
        """Read what :meth:`to_dict` wrote.

        Raises:
            BuildError: it is not that.
        """
        try:
            tensors = {
                part: tuple(
                    Tensor(str(t["name"]), tuple(int(n) for n in t["dims"]), str(t["dtype"]))
                    for t in plain[part]
                )
                for part in ("inputs", "constants", "outputs")
            }
            name, told, kind = (str(plain[part]) for part in ("name", "type", "kind"))
            return cls(name, told, kind, tuple(str(node) for node in plain["onnx"]), **tensors)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise BuildError(f"layer table: {error!r} in {str(plain)[:80]}") from error


_LINE = re.compile(
    r"Name: (?P<name>.*), LayerType: (?P<type>[^,]*), Inputs: \[(?P<inputs>.*)\], "
    r"Constants: \[(?P<constants>.*)\], Outputs: \[(?P<outputs>.*)\], .*?"
    r"TacticName: .*, StreamId: -?\d+, (?:EventId: -?\d+, )?Metadata:(?P<metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([-\d, ]*)\], .*?Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[ONNX Layer: |[\x1e\x1f]|$)")


def layers_from_log(message: str) -> list[EngineLayer]:
    """The table in TensorRT-RTX's log message.

    Raises:
        BuildError: a line that is not understood: nothing can be audited then.
    """
    found = []
    for line in message.removeprefix(HEADING).strip().splitlines():
        if not line.strip():
            break  # the input and output tensors follow
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise _not_understood(line)
        try:
            parts = [tuple(_tensors(match[part])) for part in ("inputs", "constants", "outputs")]
        except ValueError as error:  # a dimension that is no number
            raise _not_understood(line) from error
        onnx = tuple(_NODE.findall(match["metadata"].strip()))
        found.append(_layer(match["name"], match["type"], onnx, *parts))
    return found


def layers_from_inspector(text: str) -> list[EngineLayer]:
    """The table in the JSON of TensorRT's engine inspector, built with detailed verbosity.

    Raises:
        BuildError: it is not that.
    """
    try:
        held = json.loads(text)["Layers"]
        if not isinstance(held, list) or not all(isinstance(layer, dict) for layer in held):
            raise TypeError("layers hold no details")
        return [_inspected(layer) for layer in held]
    except (
        *(AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError),
    ) as error:
        raise BuildError(f"TensorRT's inspector gave no layer table ({error!r})") from error


def _inspected(layer: dict[str, Any]) -> EngineLayer:
    name, kind = str(layer["Name"]), str(layer["LayerType"])
    onnx = tuple(_NODE.findall(str(layer.get("Metadata", ""))))
    if not onnx:  # TensorRT 8.5 has no metadata; a fused layer's name lists its nodes
        onnx = tuple(part.strip() for part in name.split(" + "))
        onnx = () if "eformat" in name or name.endswith(" copy") else onnx
    constants = [_inspected_tensor(t) for t in layer.get("Constants", ())]
    weights = layer.get("Weights")
    if isinstance(weights, dict) and weights.get("Count"):
        constants.append(Tensor("weights", (int(weights["Count"]),), _dtype(str(weights["Type"]))))
    return _layer(
        name,
        f"{kind} {layer.get('ParameterType', '')}".strip(),
        onnx,
        tuple(_inspected_tensor(t) for t in layer.get("Inputs", ())),
        tuple(constants),
        tuple(_inspected_tensor(t) for t in layer.get("Outputs", ())),
    )


def _inspected_tensor(tensor: dict[str, Any]) -> Tensor:
    told = tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or ""
    dims = tuple(int(n) for n in tensor.get("Dimensions", ()))
    return Tensor(str(tensor["Name"]), dims, _dtype(str(told)))


def _tensors(text: str) -> Iterator[Tensor]:
    for name, dims, dtype in _TENSOR.findall(text):
        yield Tensor(name, tuple(int(n) for n in dims.split(",") if n.strip()), _dtype(dtype))


def _dtype(told: str) -> str:
    """Our name of the type that ``told`` speaks of, empty if of none."""
    low = told.lower()
    return next((ours for word, ours in _TYPES if word in low), "")


def _layer(
    name: str,
    told: str,
    onnx: tuple[str, ...],
    inputs: tuple[Tensor, ...],
    constants: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
) -> EngineLayer:
    kind = _kind(name, told.lower(), inputs, constants)
    return EngineLayer(name, told, kind, onnx, inputs, constants, outputs)


def _kind(name: str, told: str, inputs: tuple[Tensor, ...], constants: tuple[Tensor, ...]) -> str:
    if told in _CONTROLS:
        return "control"
    if "correlation" in told or "conv" in told:
        return "convolution"
    if "gemm" in told or "matrix" in told or "matmul" in told or "fullyconnected" in told:
        return "product"
    if not inputs and constants:
        return "unpack"
    words = re.findall(r"[A-Z][a-z]+", name.removeprefix("__myl_").partition("_")[0])
    moves = name.startswith("__myl_") and words and set(words) <= _MOVES
    return "move" if moves or any(word in told for word in _REFORMATS) else "kernel"


def _not_understood(line: str) -> BuildError:
    return BuildError(
        f"the layer table of this TensorRT is not understood ({line.strip()[:80]!r}); "
        "nothing can be audited: use a version that the target names"
    )
