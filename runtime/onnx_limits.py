"""What a model's file may hold, looked up in its bytes before any runtime reads them.

A few hundred bytes of ONNX can ask for gigabytes: functions that call functions ten times each, a
hundred thousand operators, weights that lie in other files. Runtimes trust what they load, and our
models need none of it. The file is walked in protobuf's wire format, operators' headers only: a
few milliseconds, and memory for the names of functions.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

from .errors import BundleError

#: A larger model is refused unread: a ResNet-152 in full precision takes 230 MiB.
MAX_MODEL_BYTES = 256 << 20
#: Operators, functions unfolded: MobileNetV2 in standard operators has 3,400.
MAX_OPERATORS = 1 << 16
#: Fields that are looked at; each operator has some ten.
MAX_FIELDS = 1 << 21

_AGAIN = "so not a model of ours; export it anew"
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def _tags(*numbers: int, kind: int = _LENGTH) -> tuple[int, ...]:
    return tuple(number << 3 | kind for number in numbers)


# Fields in onnx.proto, the part of it that matters here. What stands in another wire type than its
# own is an unknown field, to protobuf and here.
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTION = _tags(7, 20, 25)
_GRAPH_NODE, _GRAPH_WEIGHTS, _GRAPH_SPARSE = _tags(1, 5, 15)
_NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = _tags(4, 5, 7)
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = _tags(5, 10), _tags(6, 11), _tags(22, 23)
(_TENSOR_EXTERNAL,), (_TENSOR_LOCATION,) = _tags(13), _tags(14, kind=_VARINT)
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = _tags(1, 7, 10, 11)

_Bytes = bytes | mmap.mmap
#: Domain and name of an operator or a function.
_Key = tuple[bytes, bytes]


def check_model(model: bytes | str | os.PathLike[str], name: str | None = None) -> None:
    """Refuse a model that could ask for more than any of ours does.

    Args:
        model: an ONNX file, or its bytes.
        name: what errors call it; default: the path.

    Raises:
        BundleError: too large; no ONNX; too many operators; operators or weights that run or read
            something else (subgraphs, training, sparse weights, weights in other files).
        OSError: it cannot be read.
    """
    if isinstance(model, bytes):
        _check(model, name or "the model")
        return
    where = name or str(model)
    with open(model, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_MODEL_BYTES:
            _refuse(where, f"{size >> 20} MiB, more than {MAX_MODEL_BYTES >> 20} MiB")
        if not size:  # nothing that could be mapped
            raise BundleError(f"{where}: cannot be loaded: the file is empty; copy it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(data, where)


def _check(data: _Bytes, where: str) -> None:
    if len(data) > MAX_MODEL_BYTES:
        _refuse(where, f"{len(data) >> 20} MiB, more than {MAX_MODEL_BYTES >> 20} MiB")
    try:
        _Walk(data, where).model()
    except (IndexError, ValueError) as error:
        said = "cannot be loaded: no ONNX model, or a cut one; copy it again"
        raise BundleError(f"{where}: {said}") from error


def _refuse(where: str, what: str) -> None:
    raise BundleError(f"{where}: {what}: {_AGAIN}")


class _Walk:
    """One walk over a model; messages are given by their first byte and the byte after their last.

    Args:
        data: the model.
        where: what errors call it.
    """

    def __init__(self, data: _Bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._left = MAX_FIELDS
        self._functions: dict[_Key, list[_Key]] = {}

    def model(self) -> None:
        calls: list[_Key] = []
        # Protobuf merges messages: a model may hold its graph in parts (:mod:`.probes`).
        for field, start, end in self._fields(0, len(self._data)):
            if field == _MODEL_GRAPH:
                calls += self._graph(start, end)
            elif field == _MODEL_FUNCTION:
                self._function(start, end)
            elif field == _MODEL_TRAINING:
                _refuse(self._where, "it holds a training graph")
        self._unfold(calls)

    def _graph(self, start: int, end: int) -> list[_Key]:
        """The operators that it holds."""
        calls = []
        for field, at, stop in self._fields(start, end):
            if field == _GRAPH_NODE:
                calls.append(self._node(at, stop))
            elif field == _GRAPH_WEIGHTS:
                self._tensor(at, stop)
            elif field == _GRAPH_SPARSE:
                _refuse(self._where, "it holds sparse weights")
        return calls

    def _function(self, start: int, end: int) -> None:
        name = domain = b""
        calls = []
        for field, at, stop in self._fields(start, end):
            if field == _FUNCTION_NAME:
                name = self._data[at:stop]
            elif field == _FUNCTION_DOMAIN:
                domain = self._data[at:stop]
            elif field == _FUNCTION_NODE:
                calls.append(self._node(at, stop))
            elif field == _FUNCTION_ATTRIBUTE:
                self._attribute(at, stop)
        # Overloads share a key here: what they call is counted for each.
        self._functions.setdefault((domain, name), []).extend(calls)

    def _node(self, start: int, end: int) -> _Key:
        """Its domain and operator."""
        kind = domain = b""
        for field, at, stop in self._fields(start, end):
            if field == _NODE_TYPE:
                kind = self._data[at:stop]
            elif field == _NODE_DOMAIN:
                domain = self._data[at:stop]
            elif field == _NODE_ATTRIBUTE:
                self._attribute(at, stop)
        return domain, kind

    def _attribute(self, start: int, end: int) -> None:
        for field, at, stop in self._fields(start, end):
            if field in _ATTRIBUTE_TENSORS:
                self._tensor(at, stop)
            elif field in _ATTRIBUTE_GRAPHS:
                _refuse(self._where, "it holds a graph inside an operator (If, Loop or Scan)")
            elif field in _ATTRIBUTE_SPARSE:
                _refuse(self._where, "it holds sparse weights")

    def _tensor(self, start: int, end: int) -> None:
        for field, _, stop in self._fields(start, end):
            if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and stop):
                _refuse(self._where, "its weights lie in another file, which no hash covers")

    def _unfold(self, calls: list[_Key]) -> None:
        """Count operators as if every function were written out where it is called."""
        sizes: dict[_Key, int] = {}
        open_keys: set[_Key] = set()

        def size(key: _Key) -> int:
            if key not in self._functions:
                return 1
            if key in open_keys:
                _refuse(self._where, "a function of it calls itself")
            if key not in sizes:
                if len(open_keys) > 100:  # our own have one level
                    _refuse(self._where, "its functions call each other too deep")
                open_keys.add(key)
                sizes[key] = 1 + sum(map(size, self._functions[key]))
                open_keys.discard(key)
            return sizes[key]

        total = sum(map(size, calls))
        if total > MAX_OPERATORS:
            _refuse(self._where, f"{total:,} operators, more than {MAX_OPERATORS:,}")

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Tag (number and wire type) and place of each field; a number's value is its end.

        Raises:
            ValueError: not protobuf's wire format. IndexError: it ends within a number.
        """
        data, at = self._data, start
        while at < end:
            self._left -= 1
            if self._left < 0:
                _refuse(self._where, f"more than {MAX_FIELDS:,} fields")
            tag, at = self._number(at)
            if tag >> 32:  # some readers of protobuf would drop the upper bits, others refuse
                raise ValueError("a field's number has more than 29 bits")
            kind = tag & 7
            if kind == _LENGTH:
                length = data[at]
                at += 1
                if length >= 0x80:
                    length, at = self._number(at - 1)
                stop = at + length
                if stop > end:
                    raise ValueError("a field is longer than what holds it")
                yield tag, at, stop
                at = stop
            elif kind == _VARINT:
                value, at = self._number(at)
                yield tag, 0, value
            elif kind in (_FIXED64, _FIXED32):
                yield tag, 0, 0
                at += 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {kind}")
        if at != end:
            raise ValueError("a field is longer than what holds it")

    def _number(self, at: int) -> tuple[int, int]:
        """A number of up to 64 bits, and the place behind it."""
        value = self._data[at]
        at += 1
        if value < 0x80:
            return value, at
        value &= 0x7F
        for shift in range(7, 70, 7):
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise ValueError("a number of more than 64 bits")
