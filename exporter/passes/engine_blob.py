"""Narrow weights of many layers in one INT4 constant, unpacked at once to INT8.

In TensorRT every layer's own unpacking is a kernel of its own, some 70 KB of the plan each
(measured): unpacking all layers at once leaves one. What is unpacked goes through
``QuantizeLinear(1)``; each layer slices its part of the INT8 codes, and nothing stands between its
``DequantizeLinear`` and its convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from .base import insert, shared_constant, unit_scale
from .codebook import Codebook, codebook_of

#: Key under which the graph notes which constants are written as INT4.
_NIBBLES = "qmdd_nibbles"
_LOW, _HIGH = -8, 7


class _Kind(NamedTuple):
    """What layers of one blob share: the storage, and how a held number becomes a code."""

    storage: str
    stride: int
    first: int

    @property
    def direct(self) -> bool:
        """Whether nibbles are the codes themselves."""
        return self.storage == "int4" and self.stride == 1 and not self.first


class Blobs:
    """Collects the weights of ``graph``; :meth:`write` makes the constants and unpacks them."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self._parts: dict[_Kind, list[tuple[gs.Variable, np.ndarray]]] = {}

    def add(self, name: str, codes: np.ndarray, storage: str) -> gs.Variable:
        """The INT8 tensor that will hold ``codes`` (at most 16 levels; ``int2``: 4)."""
        held = gs.Variable(f"{name}.weight")
        self._parts.setdefault(_kind(codebook_of(codes), codes, storage), []).append((held, codes))
        return held

    def write(self) -> None:
        """Write every blob, its unpacking and the slices of its layers."""
        for number, (kind, parts) in enumerate(self._parts.items()):
            name = "weights" if len(self._parts) == 1 else f"weights.{number}"
            flat = np.concatenate([codes.reshape(-1) for _, codes in parts])
            unpack = _pairs if kind.storage == "int2" else _nibbles
            floats = unpack(self.graph, name, (flat - kind.first) // kind.stride)
            codes = _codes(self.graph, name, floats, kind)
            operands = [codes, unit_scale(self.graph), weight_zero(self.graph)]
            stored = insert(self.graph, "QuantizeLinear", f"{name}.int8", operands)
            self._share(stored, parts)

    def _share(self, stored: gs.Variable, parts: list[tuple[gs.Variable, np.ndarray]]) -> None:
        axis = shared_constant(self.graph, "weights.axis", np.array([0], dtype=np.int64))
        start = 0
        for held, codes in parts:
            numbers = {"from": [start], "to": [start + codes.size], "shape": codes.shape}
            here = {
                what: gs.Constant(f"{held.name}.{what}", np.array(value, dtype=np.int64))
                for what, value in numbers.items()
            }
            operands = [stored, here["from"], here["to"], axis]
            cut = insert(self.graph, "Slice", f"{held.name}.cut", operands)
            node = gs.Node("Reshape", f"{held.name}/Reshape", {}, [cut, here["shape"]], [held])
            self.graph.nodes.append(node)
            start += codes.size


def _kind(book: Codebook, codes: np.ndarray, storage: str) -> _Kind:
    """Codes within INT4 are held as they are; others (odd ones up to 15) by their index."""
    if storage == "int4" and codes.min() >= _LOW and codes.max() <= _HIGH:
        return _Kind(storage, 1, 0)
    zero = _LOW if storage == "int4" else 0
    return _Kind(storage, book.stride, book.first - book.stride * zero)


def _nibbles(graph: gs.Graph, name: str, index: np.ndarray) -> gs.Variable:
    """One number -8..7 to a nibble; float32."""
    return constant4(graph, f"{name}.int4", index)


def _pairs(graph: gs.Graph, name: str, index: np.ndarray) -> gs.Variable:
    """Two numbers 0..3 to a nibble, those of the first half of all are the low ones; float32."""
    if index.size % 2:
        index = np.append(index, 0)  # no layer's slice reaches it
    half = index.size // 2
    held = constant4(graph, f"{name}.int2", index[:half] + 4 * index[half:] + _LOW)
    eight, quarter, four = (
        shared_constant(graph, f"pair.{what}", np.array(value, dtype=np.float32))
        for what, value in (("eight", 8.0), ("quarter", 0.25), ("four", 4.0))
    )
    whole = insert(graph, "Add", f"{name}.pair", [held, eight])
    part = insert(graph, "Mul", f"{name}.pair.quarter", [whole, quarter])
    high = insert(graph, "Floor", f"{name}.pair.high", [part])
    shifted = insert(graph, "Mul", f"{name}.pair.shifted", [high, four])
    low = insert(graph, "Sub", f"{name}.pair.low", [whole, shifted])
    return insert(graph, "Concat", f"{name}.pair.both", [low, high], {"axis": 0})


def _codes(graph: gs.Graph, name: str, x: gs.Variable, kind: _Kind) -> gs.Variable:
    """Held numbers to codes, with an operation that TensorRT does not see through."""
    if kind.direct:
        limits = [
            shared_constant(graph, f"int4.{end}", np.array(value, dtype=np.float32))
            for end, value in (("low", _LOW), ("high", _HIGH))
        ]
        return insert(graph, "Clip", f"{name}.whole", [x, *limits])
    by = gs.Constant(f"{name}.stride", np.array(kind.stride, dtype=np.float32))
    to = gs.Constant(f"{name}.first", np.array(kind.first, dtype=np.float32))
    scaled = insert(graph, "Mul", f"{name}.scaled", [x, by])
    return insert(graph, "Add", f"{name}.whole", [scaled, to])


def constant4(graph: gs.Graph, name: str, values: np.ndarray) -> gs.Variable:
    """An INT4 constant, -8..7, behind ``DequantizeLinear(1)``."""
    operands = [int4_constant(graph, name, values), unit_scale(graph)]
    return insert(graph, "DequantizeLinear", f"{name}.float", operands)


def int4_constant(graph: gs.Graph, name: str, values: np.ndarray) -> gs.Constant:
    """A constant that :mod:`..lower` writes as INT4."""
    names: set[str] = graph.__dict__.setdefault(_NIBBLES, set())
    names.add(name)
    return gs.Constant(name, np.ascontiguousarray(values).astype(np.int8))


def int4_constants(graph: gs.Graph) -> set[str]:
    """Names of the INT8 constants that are to be written as INT4."""
    return set(graph.__dict__.get(_NIBBLES, ()))


def weight_zero(graph: gs.Graph) -> gs.Constant:
    """Zero point of every weight: 0, and with it their type, INT8."""
    return shared_constant(graph, "weight.zero", np.array(0, dtype=np.int8))
