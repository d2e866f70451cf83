"""Integer weights at their own width, widened by operators that fold when a session loads.

A layer's codes are an arithmetic progression (``-3, -1, 1, 3``); a weight is an index into it::

    index  ->  Gather(codebook INT8)  ->  DequantizeLinear(scale 1)  ->  Conv

An index is stored in planes of 1, 2, 4 or 8 bits (3 bits: 2 + 1). A plane is one of

* a UINT4 or UINT2 constant and a Cast, where the opset has that type (21, 25) and the consumer was
  said to read it (``storage='int4'``, ``'int2'``, or ``'own'`` with such an opset);
* bytes with several values in each, taken apart by ``Mod(Div(bytes, [1, 4, 16, 64]), 4)``: any
  opset, any runtime, the same size.

All of it is constant, and ONNX Runtime folds it when it loads the model; DequantizeLinear is not
folded, which keeps the optimiser from folding the scale behind a convolution into its weights (that
would cost exactness: measured). With ``storage='int8'`` the codes themselves are stored as INT8.

Sums that could pass 2^24 (8-bit layers) are split: ``w = base * high + low``, two exact
convolutions that share the stored index, ``base * conv(high) + conv(low)``: one rounding, that of
the sum.

Assumes: ``Conv(x, DequantizeLinear(integers, 1))``, ``x`` codes of a ``MultiThreshold``, or these
minus a constant.
Guarantees: the same sums; stored width as asked; every convolution's sums below 2^24.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from ...models.packing import pack_plane
from .base import (
    Outcome,
    Pass,
    codes_behind,
    constant,
    free_name,
    insert,
    producer,
    refuse,
    replace_uses,
    shared_constant,
    tidy,
    unit_scale,
)
from .codebook import INT16_PAIR, Codebook, codebook_of, exact_base, parts_of

#: Storage choices; ``own`` is each layer's own width.
STORAGES = ("own", "int2", "int4", "int8")
#: First opset that has a type of this many bits.
MIN_OPSET = {2: 25, 4: 21, 8: 13}
#: Key under which the graph notes which constants are to be packed, name -> bits.
PACKED = "qmdd_packed"
_INT32 = 6
#: How the tensor of widened or plain codes is called, after its layer.
_WEIGHT = ".weight"


def pack_weights(storage: str, opset: int, *, int16_pairs: bool = False) -> Pass:
    """The pass for one storage choice and opset.

    Args:
        int16_pairs: split weights also where two products of a code and a weight pass INT16: x86
            CPUs without VNNI add them there, and saturate.
    """
    return functools.partial(_pack_weights, storage=storage, opset=opset, int16_pairs=int16_pairs)


def _pack_weights(graph: gs.Graph, storage: str, opset: int, int16_pairs: bool) -> Outcome:
    outcome = Outcome()
    taken: set[str] = set()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        scale = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(scale.inputs[0]) if scale is not None else None
        source = codes_behind(conv.inputs[0])
        if scale is None or codes is None or source is None:
            if codes is not None and scale is not None:
                _widen_stem(scale, codes, opset)
            continue
        thresholds = constant(source.inputs[1])
        name = scale.inputs[0].name
        if thresholds is None or name.endswith(_WEIGHT):  # stored as INT8 by an earlier run
            continue
        layer = free_name(name.removesuffix(".codes"), taken)
        top = thresholds.shape[1]
        plan = Plan(layer, storage, opset, top, INT16_PAIR // top if int16_pairs else None)
        _store(graph, conv, plan, codes.astype(np.int64))
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _widen_stem(scale: gs.Node, codes: np.ndarray, opset: int) -> None:
    """Before opset 21, DequantizeLinear reads INT8 and INT32, but no INT16."""
    if codes.dtype == np.int16 and opset < MIN_OPSET[4]:
        scale.inputs[0] = gs.Constant("stem.weight.wide", codes.astype(np.int32))


class Plan(NamedTuple):
    """How one layer is to be stored: its name, one of :data:`STORAGES`, and the opset.

    ``top`` is the largest activation code, ``widest`` the largest weight of a part, if limited.
    """

    layer: str
    storage: str
    opset: int
    top: int
    widest: int | None


def _store(graph: gs.Graph, conv: gs.Node, plan: Plan, codes: np.ndarray) -> None:
    layer = plan.layer
    book = codebook_of(codes)
    values = book.first + book.stride * np.arange(book.levels, dtype=np.int64)
    parts = parts_of(values, exact_base(layer, codes, plan.top, plan.widest))
    plain = plan.storage == "int8" and len(parts) == 1 and int(np.abs(codes).max()) < 128
    index = None if plain else _index(graph, plan, codes, book)
    sums = []
    for number, (factor, part) in enumerate(parts):
        name = layer if len(parts) == 1 else f"{layer}.part{number}"
        small = int(np.abs(part).max()) < 128
        if index is None:
            integers: gs.Tensor = gs.Constant(f"{name}{_WEIGHT}", codes.astype(np.int8))
        else:
            table = gs.Constant(f"{name}.book", part.astype(np.int8 if small else np.int32))
            integers = insert(graph, "Gather", f"{name}{_WEIGHT}", [table, index], {"axis": 0})
        operands = [integers, unit_scale(graph)]
        weight = insert(graph, "DequantizeLinear", f"{name}.weight.values", operands)
        acc = insert(graph, "Conv", f"{name}.acc", [conv.inputs[0], weight], dict(conv.attrs))
        if factor != 1:
            by = gs.Constant(f"{name}.base", np.array(factor, dtype=np.float32))
            acc = insert(graph, "Mul", f"{name}.scaled", [acc, by])
        sums.append(acc)
    total = sums[0]
    for other in sums[1:]:
        total = insert(graph, "Add", f"{layer}.acc", [total, other])
    replace_uses(graph, conv.outputs[0], total)
    conv.outputs.clear()


def width_of(plan: Plan, book: Codebook) -> int:
    """Bits that an index into ``book`` is stored in; :class:`ExportError` if it does not fit."""
    if book.bits > 8:
        raise refuse(
            plan.layer, f"{book.bits}-bit weights fit no storage", "use 1, 2, 3, 4 or 8 bits"
        )
    if plan.storage == "own":
        return book.bits
    asked = int(plan.storage.removeprefix("int"))
    if asked < book.bits:
        raise refuse(
            plan.layer,
            f"{book.bits}-bit weights do not fit {plan.storage}",
            "choose a wider --weights",
        )
    return asked


def _index(graph: gs.Graph, plan: Plan, codes: np.ndarray, book: Codebook) -> gs.Tensor:
    """INT32 indices of ``codes``, from packed constants."""
    name = f"{plan.layer}.index"
    index = ((codes - book.first) // book.stride).astype(np.uint8)
    width = width_of(plan, book)
    if width != 3:
        return _plane(graph, name, index, width, plan.opset)
    low = _plane(graph, f"{name}.low", index & np.uint8(3), 2, plan.opset)
    high = _plane(graph, f"{name}.high", index >> np.uint8(2), 1, plan.opset)
    four = shared_constant(graph, "four", np.array(4, dtype=np.int32))
    shifted = insert(graph, "Mul", f"{name}.high.shifted", [high, four])
    return insert(graph, "Add", name, [low, shifted])


def _plane(graph: gs.Graph, name: str, values: np.ndarray, width: int, opset: int) -> gs.Tensor:
    """Values ``0 .. 2^width - 1`` as INT32, stored in ``width`` bits each."""
    if width < 8 and opset < MIN_OPSET.get(width, 1 << 30):
        return _byte_plane(graph, name, values, width)
    stored = gs.Constant(f"{name}.uint{width}", values)
    if width < 8:
        note_packed(graph, stored.name, width)
    return insert(graph, "Cast", name, [stored], {"to": _INT32})


def _byte_plane(graph: gs.Graph, name: str, values: np.ndarray, width: int) -> gs.Tensor:
    """``8 / width`` values to a byte, the first in the lowest bits; divided apart."""
    count, lanes = values.size, 8 // width
    packed = pack_plane(values, width)
    stored = gs.Constant(f"{name}.bytes", packed.reshape(-1, 1))
    wide = insert(graph, "Cast", f"{name}.wide", [stored], {"to": _INT32})
    powers = 2 ** (width * np.arange(lanes, dtype=np.int32))
    divisors = shared_constant(graph, f"powers{width}", powers.reshape(1, lanes))
    levels = shared_constant(graph, f"levels{width}", np.array(2**width, dtype=np.int32))
    divided = insert(graph, "Div", f"{name}.divided", [wide, divisors])
    parts = insert(graph, "Mod", f"{name}.parts", [divided, levels])
    shape = gs.Constant(f"{name}.shape", np.array(values.shape, dtype=np.int64))
    if packed.size * lanes != count:
        flat_shape = shared_constant(graph, "flat", np.array([-1], dtype=np.int64))
        flat = insert(graph, "Reshape", f"{name}.flat", [parts, flat_shape])
        limits = [np.array([v], dtype=np.int64) for v in (0, count, 0)]
        names = ("start", "end", "axis")
        operands = [gs.Constant(f"{name}.{n}", v) for n, v in zip(names, limits, strict=True)]
        parts = insert(graph, "Slice", f"{name}.cut", [flat, *operands])
    return insert(graph, "Reshape", name, [parts, shape])


def _packed(graph: gs.Graph) -> dict[str, int]:
    names: dict[str, int] = graph.__dict__.setdefault(PACKED, {})
    return names


def note_packed(graph: gs.Graph, name: str, width: int) -> None:
    """Have the uint8 constant ``name`` written as UINT2 or UINT4."""
    _packed(graph)[name] = width


def packed_constants(graph: gs.Graph) -> dict[str, int]:
    """Names of the constants to pack and their width in bits, as noted by this pass."""
    return dict(_packed(graph))


def opset_for(storage: str) -> int:
    """The lowest opset that holds a storage choice, and that current runtimes all read."""
    return MIN_OPSET[2] if storage == "int2" else MIN_OPSET[4]
