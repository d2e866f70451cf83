"""The roofline: the least time in which a device can run a network, kernel by kernel.

For every kernel of :mod:`.workload`::

    t  =  max( operations / peak,  element operations / element peak,  bytes / bandwidth )  +  d

(Williams, Waterman and Patterson, CACM 2009, with a second compute roof for what runs on no matrix
unit, and a cost ``d`` of starting a kernel, which is 0 unless it was measured.) Kernels follow one
another, so their times add up. It is a *lower bound* under the assumptions that
:func:`assumptions` spells out: a real engine reaches no peak, and starts every kernel anew.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .devices import PRECISIONS, Device, Mode
from .errors import ExportError
from .workload import KINDS, Layer, Tensor

#: What can limit a kernel.
LIMITS = ("compute", "elementwise", "memory", "start")
#: Bytes of an activation by the width that is estimated: a code, a float.
_WIDTHS = {"int8": (1, 4), "fp16": (2, 2), "fp32": (4, 4)}
#: Bytes of a number in float16 and float32.
_FLOAT_BYTES = {"float16": 2, "float32": 4}
#: Key of a rate for every operator that has none of its own.
ANY = ""


@dataclasses.dataclass(frozen=True)
class Roofs:
    """What a machine can do at most.

    Attributes:
        name: of the machine.
        products: operations a second of matrix units, by width; a multiply-add is two.
        floats: operations a second of float multiply-adds outside them (depthwise convolutions).
        elementwise: operations on single numbers a second, by ONNX operator; :data:`ANY` for
            the others.
        bandwidth: of the memory, bytes a second.
        cache_bytes: an activation of at most this size stays in the cache from who writes it to who
            reads it; 0 if none does.
        cache_bandwidth: of that cache, bytes a second; infinite where it is not documented, so that
            the bound stays one.
        start: seconds to start a kernel.
    """

    name: str
    products: Mapping[str, float]
    floats: float
    elementwise: Mapping[str, float]
    bandwidth: float
    cache_bytes: float = 0.0
    cache_bandwidth: float = math.inf
    start: float = 0.0


def roofs_of(device: Device, mode: Mode) -> Roofs:
    """The roofs of ``device`` in power mode ``mode``, from its data."""
    cores = device.rate("fp32", mode)
    return Roofs(
        name=f"{device.title}, {mode.name}",
        products={width: device.rate(width, mode) for width in device.precisions},
        floats=cores,
        elementwise={ANY: cores},
        bandwidth=mode.bandwidth.value * 1e9,
        cache_bytes=device.cache_mib.value * 2**20,
    )


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of one kernel.

    Attributes:
        layer: its name.
        kind: one of :data:`.workload.KINDS`.
        width: in which its products are computed; empty if it has none.
        multiply_adds: of the whole batch.
        elementwise: operations on single numbers, of the whole batch.
        stored_bytes: of its weights in the file.
        weight_bytes: moved for weights, biases and thresholds.
        memory_bytes: activations moved from and to memory.
        cache_bytes: activations that stay in the cache.
        compute_ms, elementwise_ms, memory_ms, start_ms: the terms of the roofline.
    """

    layer: str
    kind: str
    width: str
    multiply_adds: int
    elementwise: int
    stored_bytes: int
    weight_bytes: int
    memory_bytes: int
    cache_bytes: int
    compute_ms: float
    elementwise_ms: float
    memory_ms: float
    start_ms: float

    @property
    def ms(self) -> float:
        """The largest term, and the start."""
        return max(self.compute_ms, self.elementwise_ms, self.memory_ms) + self.start_ms

    @property
    def limit(self) -> str:
        """Which of :data:`LIMITS` the largest term is."""
        terms = (self.compute_ms, self.elementwise_ms, self.memory_ms, self.start_ms)
        return LIMITS[terms.index(max(terms))]

    @property
    def bytes(self) -> int:
        """All that is moved."""
        return self.weight_bytes + self.memory_bytes + self.cache_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**dataclasses.asdict(self), "ms": self.ms, "limit": self.limit}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The bounds of all kernels at one width."""

    precision: str
    batch: int
    bounds: tuple[Bound, ...]

    @property
    def ms(self) -> float:
        """For the whole batch."""
        return sum(bound.ms for bound in self.bounds)

    @property
    def images_per_second(self) -> float:
        """At most."""
        return 1000 * self.batch / self.ms

    def by_kind(self) -> dict[str, float]:
        """Milliseconds of each kind that occurs, in the order of :data:`.workload.KINDS`."""
        return _sums((bound.kind, bound.ms) for bound in self.bounds)

    def by_limit(self) -> dict[str, float]:
        """Milliseconds limited by each of :data:`LIMITS` that occurs."""
        found = _sums((bound.limit, bound.ms) for bound in self.bounds)
        return {limit: found[limit] for limit in LIMITS if limit in found}

    def total(self, field: str) -> int:
        """Sum of a whole-numbered field of the bounds."""
        return sum(getattr(bound, field) for bound in self.bounds)

    def to_dict(self, *, layers: bool = True) -> dict[str, Any]:
        """Plain data for JSON."""
        fields = ("multiply_adds", "elementwise", "stored_bytes", "weight_bytes")
        plain: dict[str, Any] = {
            "precision": self.precision,
            "batch": self.batch,
            "ms": self.ms,
            "images_per_second": self.images_per_second,
            "ms_by_kind": self.by_kind(),
            "ms_by_limit": self.by_limit(),
            **{field: self.total(field) for field in (*fields, "memory_bytes", "cache_bytes")},
        }
        if layers:
            plain["layers"] = [bound.to_dict() for bound in self.bounds]
        return plain


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in pairs:
        found[key] = found.get(key, 0.0) + value
    return {key: found[key] for key in sorted(found, key=_place)}


def _place(key: str) -> int:
    return KINDS.index(key) if key in KINDS else len(KINDS)


def estimate(layers: Sequence[Layer], roofs: Roofs, precision: str, batch: int = 1) -> Estimate:
    """The roofline of ``layers`` at ``precision``.

    Args:
        layers: kernels of a network, for one image.
        roofs: of the machine.
        precision: one of :data:`.devices.PRECISIONS`. ``int8``: codes times integer weights in
            INT8, everything else in float32. ``fp16``, ``fp32``: the same kernels, every number of
            that width.
        batch: images at a time.

    Raises:
        ExportError: a width or batch that does not exist, that the machine does not have, or, for
            ``int8``, a network without integer layers.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision not in roofs.products:
        has = ", ".join(roofs.products)
        raise ExportError(f"{roofs.name} does not compute in {precision}; it has {has}")
    if batch < 1:
        raise ExportError(f"batch {batch}: give at least 1")
    if precision == "int8" and not any(layer.compute == "int8" for layer in layers):
        raise ExportError(
            "nothing in this network is computed in int8: no layer has integer weights and codes; "
            "estimate fp16 or fp32"
        )
    return Estimate(
        precision, batch, tuple(_bound(layer, roofs, precision, batch) for layer in layers)
    )


def _bound(layer: Layer, roofs: Roofs, precision: str, batch: int) -> Bound:
    width = _width_of(layer, precision)
    operations = 2 * layer.multiply_adds * batch
    rate = roofs.floats if layer.kind == "depthwise" else roofs.products.get(width, roofs.floats)
    near, far = 0, 0
    for tensor in (*layer.reads, *layer.writes):
        size = _bytes_of(tensor, precision) * batch
        if size <= roofs.cache_bytes and not tensor.outside:
            near += size
        else:
            far += size
    weights = _weight_bytes(layer, precision) + layer.constants * _WIDTHS[precision][1]
    return Bound(
        layer=layer.name,
        kind=layer.kind,
        width=width,
        multiply_adds=layer.multiply_adds * batch,
        elementwise=sum(layer.elementwise.values()) * batch,
        stored_bytes=layer.stored_bytes,
        weight_bytes=weights,
        memory_bytes=far,
        cache_bytes=near,
        compute_ms=1e3 * operations / rate,
        elementwise_ms=1e3 * batch * _elementwise_seconds(layer, roofs),
        memory_ms=1e3 * ((weights + far) / roofs.bandwidth + near / roofs.cache_bandwidth),
        start_ms=1e3 * roofs.start,
    )


def _width_of(layer: Layer, precision: str) -> str:
    if not layer.multiply_adds:
        return ""
    if precision != "int8":
        return precision
    return {"int8": "int8", "float16": "fp16"}.get(layer.compute, "fp32")


def _elementwise_seconds(layer: Layer, roofs: Roofs) -> float:
    rates, usual = roofs.elementwise, roofs.elementwise[ANY]
    return sum(count / rates.get(op, usual) for op, count in layer.elementwise.items())


def _bytes_of(tensor: Tensor, precision: str) -> int:
    code, number = _WIDTHS[precision]
    if tensor.kind in ("pixels", "flags"):
        return tensor.elements
    return tensor.elements * (code if tensor.kind == "codes" else number)


def _weight_bytes(layer: Layer, precision: str) -> int:
    """What is read for the weights, and written and read again where they are unpacked first."""
    if precision != "int8":
        return layer.weights * _WIDTHS[precision][1]
    if layer.compute == "int8":
        return layer.weights + (layer.stored_bytes + layer.weights if layer.unpacked else 0)
    if layer.compute == "float16" and layer.unpacked:
        return layer.stored_bytes  # taken apart inside the matrix product
    return layer.weights * _FLOAT_BYTES[layer.compute]


def assumptions(roofs: Roofs, side: int, batch: int) -> list[str]:
    """What the bound rests on, in sentences."""
    found = [
        f"Images of {side} x {side} pixels, {batch} at a time; reading and cropping them is not in "
        "it.",
        "Kernels follow one another; each takes the largest of its terms.",
        "A convolution is a kernel: it reads codes and weights and writes its sums as floats. All "
        "element-wise work between two convolutions (scale, bias, shortcut, activation, "
        "thresholds, concatenation) is one kernel wherever it hangs together; a pooling is a "
        "kernel.",
        "int8: codes x integer weights on INT8 matrix units, everything else in float32; fp16, "
        "fp32: the same kernels, each number of that width (fp32 without TF32).",
        "Rates are dense. Depthwise convolutions and element-wise work run at the float32 rate of "
        "the ordinary cores.",
        "Weights come from memory at each inference, in the width in which they are computed; INT4 "
        "weights of an engine are read, widened, written and read again.",
    ]
    if roofs.cache_bytes:
        size = f"{roofs.cache_bytes / 2**20:g} MiB"
        known = (
            "counted as free, because its speed is in no data sheet"
            if math.isinf(roofs.cache_bandwidth)
            else f"read and written at {roofs.cache_bandwidth / 1e9:.0f} GB/s"
        )
        found.append(f"Activations of at most {size} stay in the cache, {known}.")
    if roofs.start:
        found.append(f"Starting a kernel takes {1e6 * roofs.start:.1f} us, as measured.")
    else:
        found.append("Starting a kernel takes no time (in reality some microseconds each).")
    return found
