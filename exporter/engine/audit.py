"""Planned against built: what an engine computes in which type, and what TensorRT made of it.

A Q/DQ pair that TensorRT does not like is no error to it: it dequantises and computes in floating
point, and says nothing. The audit looks every planned layer up in the engine's layer table.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..plan import PlannedLayer
from .known_warnings import known_warning
from .layers import BITS, EngineLayer, Tensor

#: A layer that the plan names and the engine does not.
MISSING = "missing"
_COMPUTES = ("convolution", "product")
#: So many node names are told in a reason.
_TOLD = 3


@dataclasses.dataclass(frozen=True)
class AuditedLayer:
    """A planned layer and what became of it.

    Attributes:
        name: of its ONNX node.
        op: ``Conv``, ``MatMul`` or ``Gemm``.
        planned, built: type it computes in; ``built`` is :data:`MISSING` if no layer has it, empty
            without an engine.
        planned_storage, built_storage: how its weights are held; empty without an engine.
        weight_bytes: of its weights in the engine (in the model, without one).
        input_bytes: of what it reads for one image, at the plan's side and the type it computes in.
        engine_layers: TensorRT's names for what computes it.
        reason: why ``built`` is another than ``planned``, empty if it is not.
    """

    name: str
    op: str
    planned: str
    built: str
    planned_storage: str
    built_storage: str
    weight_bytes: int
    input_bytes: int
    engine_layers: tuple[str, ...]
    reason: str

    @property
    def fell_back(self) -> bool:
        """Whether it is computed in another type than planned: slower, or less exact.

        A floating-point layer that no engine layer names is no finding: before TensorRT 8.6 the
        small ones vanish in fused nodes that name their first and last part only.
        """
        if self.built == MISSING:
            return self.planned != "float32"
        return bool(self.built) and self.built != self.planned


@dataclasses.dataclass(frozen=True)
class AuditedWarning:
    """A warning of TensorRT and what it means.

    Attributes:
        text, severity: TensorRT's own.
        count: how often it came.
        nodes: ONNX nodes that were being read when it came.
        verdict: ``benign``, ``fault`` (the engine computes something else) or ``unlisted``.
        name, reason: of its entry in the list of known ones, empty if it has none.
    """

    text: str
    severity: str
    count: int
    nodes: tuple[str, ...]
    verdict: str
    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """What :func:`audit` found.

    Attributes:
        layers: the planned ones, in the model's order.
        inserted: names of engine layers that no node of the model asked for.
        unpacking: names of engine layers that make weights from narrower ones at every run.
        warnings: TensorRT's.
        engine_layers: number of the engine's layers that compute or move something.
    """

    layers: tuple[AuditedLayer, ...]
    inserted: tuple[str, ...]
    unpacking: tuple[str, ...]
    warnings: tuple[AuditedWarning, ...]
    engine_layers: int

    @property
    def fallbacks(self) -> list[AuditedLayer]:
        """Layers that run in another type than planned."""
        return [layer for layer in self.layers if layer.fell_back]

    @property
    def faults(self) -> list[str]:
        """A line for each finding that makes the engine another than the model."""
        lines = [f"{layer.name}: {layer.reason}" for layer in self.fallbacks]
        for warning in self.warnings:
            if warning.verdict == "fault":
                where = ", ".join(warning.nodes) or "the model"
                lines.append(f"{where}: {warning.reason} ({warning.name})")
        return lines

    @property
    def unlisted(self) -> list[AuditedWarning]:
        """Warnings that nobody has looked into."""
        return [warning for warning in self.warnings if warning.verdict == "unlisted"]

    @property
    def passed(self) -> bool:
        """No fault."""
        return not self.faults

    def count(self, compute: str, *, built: bool) -> int:
        """Number of layers that are planned, or built, to compute in type ``compute``."""
        return sum((layer.built if built else layer.planned) == compute for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the verdicts."""
        return {
            **dataclasses.asdict(self),
            "int8_planned": self.count("int8", built=False),
            "int8_built": self.count("int8", built=True),
            "faults": self.faults,
            "unlisted_warnings": len(self.unlisted),
            "passed": self.passed,
        }


def audit(
    plan: Sequence[PlannedLayer],
    layers: Sequence[EngineLayer] | None,
    warnings: Sequence[Mapping[str, str]] = (),
) -> Audit:
    """Compare ``plan`` with the engine's ``layers``.

    Args:
        plan: of the model, in its order.
        layers: of the engine; ``None`` if there is none: then the plan is all that is told.
        warnings: ``severity``, ``text`` and ``node`` of each, as the builder kept them.
    """
    if layers is None:
        return Audit(tuple(map(_planned_only, plan)), (), (), (), 0)
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    return Audit(
        layers=tuple(_storage_told(_audited(planned, layers, makers) for planned in plan)),
        inserted=tuple(layer.name for layer in layers if layer.inserted),
        unpacking=tuple(layer.name for layer in layers if layer.kind == "unpack"),
        warnings=_warnings(warnings),
        engine_layers=sum(layer.kind != "control" for layer in layers),
    )


def _planned_only(planned: PlannedLayer) -> AuditedLayer:
    return AuditedLayer(
        name=planned.name,
        op=planned.op,
        planned=planned.compute,
        built="",
        planned_storage=planned.weight_storage,
        built_storage="",
        weight_bytes=planned.weight_bytes,
        input_bytes=_size(planned.in_shape, planned.compute),
        engine_layers=(),
        reason="",
    )


def _audited(
    planned: PlannedLayer, layers: Sequence[EngineLayer], makers: Mapping[str, EngineLayer]
) -> tuple[AuditedLayer, int, list[Tensor]]:
    """The layer, but for its storage; the number of its weights; the constants that hold them."""
    holding = [layer for layer in layers if planned.name in layer.onnx]
    computing = [layer for layer in holding if layer.kind in _COMPUTES]
    # A small product is a part of some kernel; what only prepares its operands is not.
    computing = computing or [layer for layer in holding if layer.kind == "kernel"][-1:]
    found = [_Operands(planned, layer, makers) for layer in computing]
    wrong = next((one for one in found if one.compute != planned.compute), None)
    built = wrong.compute if wrong else found[0].compute if found else MISSING
    reason = ""
    if wrong is not None:
        reason = f"planned {planned.compute}, built {wrong.describe()}"
    elif not found:
        reason = f"planned {planned.compute}, but no layer of the engine names it"
    layer = AuditedLayer(
        name=planned.name,
        op=planned.op,
        planned=planned.compute,
        built=built,
        planned_storage=planned.weight_storage,
        built_storage="",
        weight_bytes=0,
        input_bytes=_size(planned.in_shape, built if built in BITS else planned.compute),
        engine_layers=tuple(layer.name for layer in computing),
        reason=reason,
    )
    return layer, planned.weights, list(dict.fromkeys(t for one in found for t in one.stored))


def _storage_told(
    audited: Iterable[tuple[AuditedLayer, int, list[Tensor]]],
) -> Iterator[AuditedLayer]:
    """Fill in how weights are held; of a constant that several layers share, each has its share.

    A constant of INT4 with half as many elements as weights holds two codes to the nibble.
    """
    rows = list(audited)
    fed: Counter[Tensor] = Counter()
    for _, weights, stored in rows:
        fed.update(dict.fromkeys(stored, weights))
    for layer, weights, stored in rows:
        if not stored:
            yield layer
            continue
        largest = max(stored, key=lambda tensor: tensor.elements)
        halved = largest.dtype == "int4" and 2 * largest.elements <= fed[largest] + 1
        yield dataclasses.replace(
            layer,
            built_storage="int2" if halved else largest.dtype,
            weight_bytes=sum(tensor.bytes * weights // fed[tensor] for tensor in stored),
        )


class _Operands:
    """What one engine layer multiplies with what, to compute a planned layer.

    Attributes:
        compute: the type of the products: the operands' own if both have it, else floating point.
        stored: the constants that hold its weights.
    """

    def __init__(
        self, planned: PlannedLayer, layer: EngineLayer, makers: Mapping[str, EngineLayer]
    ) -> None:
        self._planned, self._makers = planned, makers
        enough = [t for t in (*layer.constants, *layer.inputs[1:]) if t.elements >= planned.weights]
        # Padding makes weights larger, never smaller; scales and biases are smaller.
        self._weights = min(enough, key=lambda tensor: tensor.elements, default=None)
        self._data = layer.inputs[0] if layer.inputs else None
        types = [tensor.dtype for tensor in (self._data, self._weights) if tensor is not None]
        if layer.kind == "kernel":
            types = [tensor.dtype for tensor in (*layer.inputs, *layer.constants)]
        self.compute = types[0] if len(set(types)) == 1 else _widest(types)
        self.stored = self._find_stored(layer)

    def describe(self) -> str:
        """The operands' types, and where one that is not as planned comes from."""
        parts = []
        for what, tensor in (("activations", self._data), ("weights", self._weights)):
            if tensor is None:
                continue
            maker = self._makers.get(tensor.name)
            names = maker.onnx if maker else ()
            told = ", ".join(names[:_TOLD]) + (", ..." if len(names) > _TOLD else "")
            parts.append(f"{what} {tensor.dtype}" + (f" from {told}" if told else ""))
        return f"{self.compute} ({'; '.join(parts) or 'no operands told'})"

    def _find_stored(self, layer: EngineLayer) -> list[Tensor]:
        """Constants with the weights: the layer's own, or those of what unpacks them for it."""
        if self._weights in layer.constants:
            return [self._weights] if self._weights is not None else []
        found: list[Tensor] = []
        waiting = [self._weights.name] if self._weights is not None else []
        seen: set[str] = set()
        while waiting:
            maker = self._makers.get(waiting.pop())
            if maker is None or maker.name in seen:
                continue
            seen.add(maker.name)
            # Two bits a weight: a quarter of the elements, if they are held as bytes.
            found += [t for t in maker.constants if 4 * t.elements >= self._planned.weights]
            waiting += [tensor.name for tensor in maker.inputs]
        return found


def _widest(types: Sequence[str]) -> str:
    floats = [dtype for dtype in types if "float" in dtype]
    return max(floats or [*types, "float32"][:1], key=lambda dtype: BITS.get(dtype, 0))


def _size(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * BITS.get(dtype, 32) // 8


def _warnings(held: Sequence[Mapping[str, str]]) -> tuple[AuditedWarning, ...]:
    """Equal texts once, with all their nodes."""
    by_text: dict[str, list[Mapping[str, str]]] = {}
    for entry in held:
        by_text.setdefault(entry["text"], []).append(entry)
    found = []
    for text, entries in by_text.items():
        known = known_warning(text)
        verdict = "unlisted" if known is None else "benign" if known.benign else "fault"
        found.append(
            AuditedWarning(
                text=" ".join(text.split()),
                severity=entries[0]["severity"],
                count=len(entries),
                nodes=tuple(dict.fromkeys(e["node"] for e in entries if e["node"])),
                verdict=verdict,
                name=known.name if known else "",
                reason=known.reason if known else "",
            )
        )
    return tuple(found)
