"""The nodes of a serialised ONNX model, without the onnx package: a device has none.

Source: protobuf's encoding; ``onnx.proto``: ModelProto.graph is 7, GraphProto.node 1; of a
NodeProto input is 1, output 2, name 3, op_type 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Node(NamedTuple):
    op: str
    name: str
    inputs: list[str]
    outputs: list[str]


def nodes_of(model: bytes) -> list[Node]:
    """Of all graphs: a model may be several messages, one behind the other."""
    return [
        _node(part)
        for number, graph in _fields(model)
        if number == 7
        for inner, part in _fields(graph)
        if inner == 1
    ]


def _node(data: bytes) -> Node:
    found: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for number, value in _fields(data):
        if number in found:
            found[number].append(value.decode())
    return Node("".join(found[4]), "".join(found[3]), found[1], found[2])


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of each field that has a length; others are passed over."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            _, place = _varint(data, place)
        elif kind == 2:
            length, place = _varint(data, place)
            yield key >> 3, data[place : place + length]
            place += length
        else:
            place += {1: 8, 5: 4}[kind]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
