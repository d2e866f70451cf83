"""Quantizers and weights as QONNX writes them, for flows that build FPGA accelerators (FINN).

* ``qmdd::MultiThreshold`` becomes ``qonnx.custom_op.general::MultiThreshold``, which counts
  ``x >= t`` by the same table; where convolutions read ``code - zero``, its ``out_bias`` is
  ``-zero``.
* Weights become ``Quant(floats, scale 1, zero point 0, bits)``. Codes at the odd numbers, ``-3, -1,
  1, 3``, are written as what they are: whole numbers of one bit more (INT3), every other of which
  occurs. An exact fit would need scale 2 and a zero point of one half, and FINN takes zero point 0
  only. Codes ``-1, 1`` are QONNX's BIPOLAR: one bit, signed.
* Sums that could pass 2^24 are split in two, ``base * conv(high) + conv(low)``, as elsewhere: qonnx
  carries integers in float32.

Assumes: ``Conv(x, DequantizeLinear(integers, 1))``, ``x`` pixels, codes of a ``MultiThreshold``, or
these minus a constant.
Guarantees: equal codes; the data type of every such tensor is noted (:func:`datatypes`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from .base import (
    Outcome,
    ascending,
    centred_uses,
    codes_behind,
    constant,
    free_name,
    insert,
    producer,
    refuse,
    replace_uses,
    shared_constant,
    tidy,
)
from .codebook import exact_base, parts_of

DOMAIN = "qonnx.custom_op.general"
#: Key under which the graph notes QONNX's data types, tensor -> name.
_TYPES = "qmdd_qonnx_types"
_PIXEL_TOP = 255


class Width(NamedTuple):
    """The narrowest integers of QONNX that hold some codes."""

    bits: int
    signed: bool
    narrow: bool

    @property
    def name(self) -> str:
        """QONNX's name of the data type."""
        if self.bits == 1:
            return "BIPOLAR" if self.signed else "BINARY"
        return f"{'' if self.signed else 'U'}INT{self.bits}"


def width_of(low: int, high: int, *, odd: bool = False) -> Width:
    """For whole numbers from ``low`` to ``high``; ``odd``: zero is not among them."""
    if low >= 0:
        return Width(max(high.bit_length(), 1), signed=False, narrow=False)
    if odd and (low, high) == (-1, 1):
        return Width(1, signed=True, narrow=True)
    bits = max((-low - 1).bit_length(), high.bit_length()) + 1
    return Width(bits, signed=True, narrow=low > -(2 ** (bits - 1)))


def datatypes(graph: gs.Graph) -> dict[str, str]:
    """QONNX's data types of tensors, as noted by the passes of this module."""
    noted: dict[str, str] = graph.__dict__.setdefault(_TYPES, {})
    return noted


def qonnx_weights(graph: gs.Graph) -> Outcome:
    """Write the weights of every convolution of integers through ``Quant``."""
    outcome = Outcome()
    taken: set[str] = set()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        weights = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(weights.inputs[0]) if weights is not None else None
        if weights is None or codes is None:
            continue
        source = codes_behind(conv.inputs[0])
        table = constant(source.inputs[1]) if source is not None else None
        top = _PIXEL_TOP if table is None else table.shape[1]
        whole = codes.astype(np.int64)
        stored = weights.inputs[0].name
        layer = free_name(stored.removesuffix(".codes").removesuffix(".weight"), taken)
        base = exact_base(layer, whole, top)
        total: gs.Tensor | None = None
        for number, (factor, part) in enumerate(parts_of(whole, base)):
            name = layer if base == 1 else f"{layer}.part{number}"
            operands = [conv.inputs[0], _quant(graph, name, part)]
            acc = insert(graph, "Conv", f"{name}.acc", operands, dict(conv.attrs))
            if factor != 1:
                by = gs.Constant(f"{name}.base", np.array(factor, dtype=np.float32))
                acc = insert(graph, "Mul", f"{name}.scaled", [acc, by])
            total = acc if total is None else insert(graph, "Add", f"{name}.sum", [total, acc])
        replace_uses(graph, conv.outputs[0], total)
        conv.outputs.clear()
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def _quant(graph: gs.Graph, name: str, codes: np.ndarray) -> gs.Tensor:
    width = width_of(int(codes.min()), int(codes.max()), odd=bool(codes.all()))
    stored = gs.Constant(f"{name}.weight.codes", codes.astype(np.float32))
    one = shared_constant(graph, "quant.scale", np.array(1.0, dtype=np.float32))
    zero = shared_constant(graph, "quant.zero", np.array(0.0, dtype=np.float32))
    bits = shared_constant(graph, f"quant.bits{width.bits}", np.array(width.bits, dtype=np.float32))
    attrs = {"signed": int(width.signed), "narrow": int(width.narrow), "rounding_mode": "ROUND"}
    quant = insert(graph, "Quant", f"{name}.weight.quant", [stored, one, zero, bits], attrs)
    quant.inputs[0].domain = DOMAIN
    datatypes(graph).update({stored.name: width.name, quant.name: width.name})
    return quant


def qonnx_thresholds(graph: gs.Graph) -> Outcome:
    """Write every ``MultiThreshold`` as QONNX's."""
    outcome = Outcome()
    for node in [n for n in graph.nodes if n.op == "MultiThreshold" and n.domain != DOMAIN]:
        layer = node.attrs.get("layer", node.name)
        table = constant(node.inputs[1])
        if table is None or not ascending(table):
            raise refuse(layer, "its thresholds are not an ascending constant", "freeze it again")
        level, readers = centred_uses(node.outputs[0])
        if not float(level).is_integer():
            raise refuse(layer, f"its codes are read minus {level}, which is not whole", "use n2uq")
        for reader in readers if level else ():
            replace_uses(graph, reader.outputs[0], node.outputs[0])
            reader.outputs.clear()
        width = width_of(-int(level), table.shape[1] - int(level))
        node.domain = DOMAIN
        node.attrs.clear()
        node.attrs.update(
            {
                "out_dtype": width.name,
                "out_scale": 1.0,
                "out_bias": -float(level),
                "data_layout": "NCHW",
            }
        )
        datatypes(graph)[node.outputs[0].name] = width.name
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


def qonnx_image(graph: gs.Graph) -> Outcome:
    """Let the image come as floats that hold bytes, as QONNX carries integers: no ``Cast``."""
    outcome = Outcome()
    (image,) = graph.inputs
    for cast in [node for node in image.outputs if node.op == "Cast"]:
        replace_uses(graph, cast.outputs[0], image)
        cast.outputs.clear()
        outcome.applied += 1
    datatypes(graph)[image.name] = "UINT8"
    if outcome.modified:
        tidy(graph)
    return outcome


def qonnx_concat(graph: gs.Graph) -> Outcome:
    """Let no node read one tensor twice: qonnx's own clean-up renames only one of the two.

    A shortcut with more channels out than in (paper Eq. 8) is its input concatenated with itself.
    """
    outcome = Outcome()
    for node in [node for node in graph.nodes if node.op == "Concat"]:
        for index, tensor in enumerate(node.inputs):
            if any(tensor is other for other in node.inputs[:index]):
                name = f"{node.outputs[0].name}.copy{index}"
                node.inputs[index] = insert(graph, "Identity", name, [tensor])
                outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome
