"""Integer weights as TensorRT reads them: ``DequantizeLinear(INT8, 1)`` right before ``Conv``.

Nothing may stand between the two, and the scale is one for the whole tensor: 1, or for the upper of
two parts a power of two. The result of the convolution is then an exact integer in every runtime;
step, scale, batch-norm and alpha follow it as one product and one sum.

How the constant itself is held is the storage:

* ``int8``: the codes.
* ``int4``: ``INT4 -> DequantizeLinear(1) -> Clip(-8, 7) -> QuantizeLinear(1)``, the ``Clip`` being
  what keeps TensorRT from taking INT4 for the type of the convolution. Odd codes up to +-15 are
  held by their index, and a product and a sum stand in the Clip's place.
* ``int2``: two codes to an INT4 nibble, ``first + 4 * second - 8``, taken apart by ``Floor``.

Narrow weights of all layers lie in one constant, which one kernel unpacks and every layer takes its
slice of: a kernel a layer would add some 70 KB each (:mod:`.engine_blob`).

Each rests on what the builder was seen to accept; where a target's engines cannot hold a storage it
is widened to ``int8``, and a note says so. ``precision='int4'`` on a classic TensorRT, which has
INT4 for matrix products alone: see :mod:`.engine_products`.

The stem, a thousandth of all weights, is INT8 always. A depthwise convolution reads its codes as
floats: in INT8 TensorRT pads every group to a block of 32 x 32 channels, 1,000 times the weights
(measured), for no arithmetic saved.

Assumes: ``Conv(x, DequantizeLinear(integers, 1))``, ``x`` codes of a ``MultiThreshold`` or these
minus a constant, or INT8 pixels.
Guarantees: the same sums, each below 2^24; the convolutions' weights come through
``DequantizeLinear`` of INT8.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from .base import (
    Outcome,
    Pass,
    codes_behind,
    constant,
    free_name,
    insert,
    largest_code,
    producer,
    replace_uses,
    shared_constant,
    tidy,
    unit_scale,
)
from .codebook import codebook_of, exact_base, parts_of
from .engine_blob import Blobs, weight_zero
from .engine_products import as_product, why_no_product
from .engine_stem import PIXEL_SHIFT

if TYPE_CHECKING:
    from ..targets import EngineSpec

#: How an engine can hold weights, the widest first.
ENGINE_STORAGES = ("int8", "int4", "int2")
_INT8_TOP = 127


def engine_weights(storage: str, precision: str, engine: EngineSpec | None) -> Pass:
    """The pass for one storage, precision and engine (none: everything as INT8)."""
    able = engine.storages if engine is not None else ("int8",)
    products = precision == "int4" and "int4" not in able
    return functools.partial(_engine_weights, storage=storage, able=able, products=products)


class _Layer(NamedTuple):
    """A convolution on codes: its name, integer weights and the largest code that it reads."""

    name: str
    conv: gs.Node
    codes: np.ndarray
    top: int
    stem: bool


def _engine_weights(
    graph: gs.Graph, storage: str, able: tuple[str, ...], products: bool
) -> Outcome:
    outcome = Outcome()
    held = storage if storage in able else "int8"
    if storage not in (held, "own"):
        outcome.notes.append(f"weights widened from {storage} to int8: no other fits this target")
    if storage == "own":
        held = "int8"
    blobs = Blobs(graph)
    for layer in _layers(graph):
        if products and _is_dense(layer):
            why = why_no_product(layer.conv, layer.codes, layer.top)
            if not why:
                as_product(graph, layer.name, layer.conv, layer.codes)
                outcome.applied += 1
                continue
            outcome.notes.append(f"{layer.name}: stays INT8: {why}")
        narrow = _is_dense(layer) and not layer.stem
        if narrow and held != "int8" and layer.top > _INT8_TOP:
            narrow = False  # what a shift of its codes takes from its sums must be known
            outcome.notes.append(f"{layer.name}: reads 8-bit codes; widened from {held} to int8")
        _store(layer, held if narrow else "int8", blobs, outcome)
        outcome.applied += 1
    blobs.write()
    if outcome.modified:
        tidy(graph)
    return outcome


def _layers(graph: gs.Graph) -> list[_Layer]:
    found: list[_Layer] = []
    taken: set[str] = set()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        scale = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(scale.inputs[0]) if scale is not None else None
        if scale is None or codes is None or scale.inputs[0].name.endswith(".weight.int8"):
            continue
        source = codes_behind(conv.inputs[0])
        pixels = producer(conv.inputs[0], "DequantizeLinear")
        if source is None and pixels is None:
            continue
        top = PIXEL_SHIFT if source is None else largest_code(source)
        stored = scale.inputs[0].name
        name = free_name(stored.removesuffix(".codes").removesuffix(".weight"), taken)
        found.append(_Layer(name, conv, codes.astype(np.int64), top, source is None))
    return found


def _is_dense(layer: _Layer) -> bool:
    return int(layer.conv.attrs.get("group", 1)) == 1


def _store(layer: _Layer, storage: str, blobs: Blobs, outcome: Outcome) -> None:
    """One convolution, or two whose sums are added: ``conv(base * high) + conv(low)``.

    The factor is the scale of the part's weights, a power of two, so that both sums are exact;
    what is rounded, once, is their sum where it passes 2^24. TensorRT adds the first sum in the
    second convolution's kernel.
    """
    graph = blobs.graph
    base = exact_base(layer.name, layer.codes, layer.top, _INT8_TOP)
    sums = []
    for factor, part in parts_of(layer.codes, base):
        name = layer.name if base == 1 else f"{layer.name}.by{factor}"
        operands = [layer.conv.inputs[0], _weight(name, part, factor, storage, blobs, outcome)]
        sums.append(insert(graph, "Conv", f"{name}.acc", operands, dict(layer.conv.attrs)))
    total = functools.reduce(
        lambda one, other: insert(graph, "Add", f"{layer.name}.acc", [one, other]), sums
    )
    replace_uses(graph, layer.conv.outputs[0], total)
    layer.conv.outputs.clear()


def _weight(
    name: str, codes: np.ndarray, factor: int, storage: str, blobs: Blobs, outcome: Outcome
) -> gs.Tensor:
    """``factor * codes`` for ``Conv``, held as ``storage`` or, where this cannot be, wider."""
    levels = codebook_of(codes).levels
    if storage == "int2" and levels > 4:
        outcome.notes.append(f"{name}: {levels} levels; widened from int2 to int4")
        storage = "int4"
    if storage == "int4" and levels > 16:
        outcome.notes.append(f"{name}: {levels} levels; widened from int4 to int8")
        storage = "int8"
    graph = blobs.graph
    stored: gs.Tensor = (
        gs.Constant(f"{name}.weight.int8", codes.astype(np.int8))
        if storage == "int8"
        else blobs.add(name, codes, storage)
    )
    scale = unit_scale(graph)
    if factor != 1:
        scale = shared_constant(graph, f"scale{factor}", np.array(factor, dtype=np.float32))
    operands = [stored, scale, weight_zero(graph)]
    return insert(graph, "DequantizeLinear", f"{name}.weight.values", operands)
