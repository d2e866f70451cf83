"""Convolutions of codes as integer matrix products: ``MatMulInteger`` on the columns of bytes.

    codes -> Cast(UINT8) -> columns -> MatMulInteger(weights [k * k * C, O]) -> Cast(float)

The sums are INT32: exact as they are, whatever the width, and the Cast rounds once, as the source
does where a sum passes 2^24. Codes that the convolution reads minus a zero keep it as the product's
own zero point, and it is what stands around the image.

Weights are packed at their own width and widened by operators that fold when the session loads
(:mod:`.byte_weights`), here without DequantizeLinear: what the product reads is then an INT8
constant, which the runtime lays out for its kernels once.

x86 CPUs without VNNI add two products of a byte and a weight in INT16, which saturates: weights are
split where that could be, ``w = base * high + low``, and the parts' sums are joined as INT32.

Assumes: a private ``Conv`` of :mod:`.channels_last`, ungrouped, that reads codes of a
``MultiThreshold``, or these minus a whole number; weights ``DequantizeLinear(integers, 1)``.
Guarantees: equal results. Other convolutions are left as they are.
"""

from __future__ import annotations

import functools

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
    refuse,
    replace_uses,
    tidy,
)
from .byte_weights import codes_of, index_bytes
from .channels_last import NHWC
from .codebook import INT16_PAIR, codebook_of, largest_sum, parts_of
from .columns import Columns, Window
from .grids import noted_grids
from .pack_weights import Plan

_FLOAT, _UINT8, _INT32 = 1, 2, 6  # TensorProto data types
#: Factors between the parts of a weight, the preferred one first.
_BASES = (1, 16, 8, 32, 4)
_INT8 = 127


def matmul_conv(storage: str, opset: int) -> Pass:
    """The pass for one storage choice, of :data:`.pack_weights.STORAGES`, and opset."""
    return functools.partial(_matmul_conv, storage=storage, opset=opset)


def _matmul_conv(graph: gs.Graph, storage: str, opset: int) -> Outcome:
    outcome = Outcome()
    taken: set[str] = set()
    shared = _Rows(graph)
    for conv in [node for node in graph.nodes if node.op == "Conv" and node.domain == NHWC]:
        scale = producer(conv.inputs[1], "DequantizeLinear")
        weights = constant(scale.inputs[0]) if scale is not None else None
        source = codes_behind(conv.inputs[0])
        if scale is None or weights is None or source is None:
            continue
        if conv.attrs.get("group", 1) != 1 or len(conv.inputs) > 2:
            continue
        layer = free_name(scale.inputs[0].name.removesuffix(".codes"), taken)
        plan = Plan(layer, storage, opset, largest_code(source), None)
        rows, zero = shared.of(conv, source, weights.shape)
        _write(graph, conv, plan, weights.astype(np.int64), rows, zero)
        outcome.applied += 1
    if outcome.modified:
        tidy(graph)
    return outcome


class _Rows:
    """Bytes of codes and their columns, made once for all convolutions that read them."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self._grids, self._make = noted_grids(graph), Columns(graph)
        self._bytes: dict[str, gs.Tensor] = {}
        self._rows: dict[tuple[str, int, Window], gs.Tensor] = {}

    def of(self, conv: gs.Node, source: gs.Node, shape: tuple[int, ...]) -> tuple[gs.Tensor, int]:
        """What ``conv``, its weights of this shape, multiplies, and the byte that means zero."""
        codes = source.outputs[0]
        zero = _zero(conv)
        if codes.name not in self._bytes:
            self._bytes[codes.name] = insert(
                self.graph, "Cast", f"{codes.name}.bytes", [codes], {"to": _UINT8}
            )
        window = Window.of(conv, (shape[2], shape[3]))
        key = (codes.name, zero, window)
        if key not in self._rows:
            grid = self._grids.of(codes)
            self._rows[key] = self._make.of(
                self._bytes[codes.name],
                f"{conv.outputs[0].name}.columns",
                window,
                zero,
                shape[1],
                grid,
            )
            places = self._make.places_of(grid, window)
            if places is not None and self._grids.of(conv.outputs[0]) == grid:
                self._grids.same[places.name] = grid
        return self._rows[key], zero


def _zero(conv: gs.Node) -> int:
    """What a convolution takes from the codes that it reads."""
    sub = producer(conv.inputs[0], "Sub")
    if sub is None:
        return 0
    value = constant(sub.inputs[1])
    level = float(value.reshape(-1)[0]) if value is not None and value.size == 1 else -1.0
    if not level.is_integer() or not 0 <= level <= 255:
        raise refuse(conv.name, f"its codes are read minus {value}", "export for onnx")
    return int(level)


def _write(
    graph: gs.Graph, conv: gs.Node, plan: Plan, weights: np.ndarray, rows: gs.Tensor, zero: int
) -> None:
    """Put the product in place of ``conv``."""
    layer = plan.layer
    if largest_sum(weights, plan.top) >= 2**31:
        raise refuse(layer, "its integer sums pass 2^31", "use fewer bits or channels")
    matrix = weights.transpose(2, 3, 1, 0).reshape(-1, weights.shape[0])
    book = codebook_of(matrix)
    values = book.first + book.stride * np.arange(book.levels, dtype=np.int64)
    widest = min(_INT8, INT16_PAIR // plan.top)
    parts = parts_of(values, _base(layer, values, widest))
    plain = plan.storage == "int8" and len(parts) == 1
    index = None if plain else index_bytes(graph, plan, matrix, book)
    point = [gs.Constant(f"{layer}.zero", np.array(zero, dtype=np.uint8))] if zero else []
    total: gs.Tensor | None = None
    for number, (factor, part) in enumerate(parts):
        name = layer if len(parts) == 1 else f"{layer}.part{number}"
        if index is None:
            stored: gs.Tensor = gs.Constant(f"{name}.weight", matrix.astype(np.int8))
        elif len(parts) == 1:
            stored = codes_of(graph, f"{name}.weight", index, book)
        else:
            table = gs.Constant(f"{name}.book", part.astype(np.int8))
            wide = insert(graph, "Cast", f"{name}.index", [index], {"to": _INT32})
            stored = insert(graph, "Gather", f"{name}.weight", [table, wide], {"axis": 0})
        acc = insert(graph, "MatMulInteger", f"{name}.sums", [rows, stored, *point])
        if factor != 1:
            by = gs.Constant(f"{name}.base", np.array(factor, dtype=np.int32))
            acc = insert(graph, "Mul", f"{name}.scaled", [acc, by])
        total = acc if total is None else insert(graph, "Add", f"{layer}.sums", [total, acc])
    replace_uses(
        graph, conv.outputs[0], insert(graph, "Cast", f"{layer}.acc", [total], {"to": _FLOAT})
    )
    conv.outputs.clear()


def _base(layer: str, values: np.ndarray, widest: int) -> int:
    """The factor between two parts of which no weight passes ``widest``."""
    for base in _BASES:
        if all(int(np.abs(part).max()) <= widest for _, part in parts_of(values, base)):
            return base
    raise refuse(layer, "its weights fit no two parts in INT8", "use 8 bits or fewer")
