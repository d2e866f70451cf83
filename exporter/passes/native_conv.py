"""Quantised convolutions as operators of our own native library, up to the next layer's codes.

``QuantConv`` computes on codes what one layer and the quantizer behind it do (paper Eq. 6-11)::

    acc = sum of code * weight        integers
    z   = acc * m + b                 one multiplication, one addition
    z   = z + addend * factor         the shortcut of a CQB, then the block's own
    z   = max(z, 0)                   and the maximum over a pooling window: the stem
    v   = prelu(z + shift) + shift    only where the chain could not be folded into thresholds
    code = how many thresholds v reaches

in one pass over memory, with the float operations of the graph, one each and in the graph's order,
so codes are equal bit for bit. ``Threshold`` makes codes of floats that no ``QuantConv`` made, and
``Cells`` the stem's input. Their meaning is written down in ``runtime/native/conv.h`` and
``operators.cpp``; all tensors are channels last, codes are UINT8.

Codes are written with the border of padding that the convolutions behind them read (attribute
``out_halo``), so that none has to copy its input; the tensor is then called ``<layer>.codes.halo``.

Assumes: :mod:`.channels_last`, :mod:`.cell_stem` and :mod:`.fold_chain` have run.
Guarantees: the same codes and floats. Convolutions that do not fit (of floats, grouped, dilated,
beyond 8 bits) stay for the passes of the portable form, and a note says why.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_graphsurgeon as gs

from ..multithreshold import DOMAIN
from ..probes import HALO
from .base import (
    Outcome,
    ascending,
    centred_uses,
    constant,
    insert,
    largest_code,
    producer,
    replace_uses,
    shared_constant,
    tidy,
)
from .channels_last import NHWC
from .codebook import codebook_of

#: Names of the native operators.
NATIVE_OPS = ("QuantConv", "Threshold", "Cells")
#: The library's own bounds (runtime/native).
_MAX_THRESHOLDS, _MAX_ADDENDS, _MAX_POOL, _MAX_BITS = 255, 2, 8, 8
_PIXEL_TOP, _FLOAT = 255, 1


@dataclasses.dataclass
class _Layer:
    """A convolution that becomes native, and what is fused with it.

    ``addends``: tensors and the factors they are multiplied by. ``end``: the last fused float.
    ``quantizer``: whose codes it writes; ``chain``: shift, slope, shift in front of it.
    """

    conv: gs.Node
    source: gs.Node  # MultiThreshold or Cells
    zero: int
    weights: np.ndarray  # [O, I, kh, kw]
    multiplier: np.ndarray
    bias: np.ndarray
    end: gs.Tensor
    addends: list[tuple[gs.Tensor, float]] = dataclasses.field(default_factory=list)
    relu: bool = False
    pool: tuple[int, int, int] = (0, 0, 0)
    quantizer: gs.Node | None = None
    chain: list[np.ndarray] = dataclasses.field(default_factory=list)


def native_conv(graph: gs.Graph) -> Outcome:
    """Fuse every quantised convolution that fits; ``applied`` counts them."""
    outcome = Outcome()
    graph.toposort()
    layers: list[_Layer] = []
    claimed: set[int] = set()  # additions where two convolutions meet: the first one makes them
    for conv in [n for n in graph.nodes if n.op == "Conv" and n.domain == NHWC]:
        found = _match(conv, claimed)
        if isinstance(found, str):
            outcome.notes.append(f"{conv.name}: {found}; it stays portable")
        else:
            layers.append(found)
    taken: set[int] = set()
    for layer in layers:
        _fuse_quantizer(layer, taken)
    quantizers = {id(layer.source): layer.source for layer in layers}
    codes = {key: _Codes(node, layers) for key, node in quantizers.items()}
    for layer in layers:
        if layer.quantizer is not None and id(layer.quantizer) not in codes:
            codes[id(layer.quantizer)] = _Codes(layer.quantizer, layers)
    written: dict[int, gs.Tensor] = {}
    for layer in layers:
        _write_layer(graph, layer, codes, written)
        outcome.applied += 1
    for made in codes.values():
        made.write_rest(graph, taken)
    if outcome.modified:
        tidy(graph)
    return outcome


def _match(conv: gs.Node, claimed: set[int]) -> _Layer | str:
    """The layer that begins at ``conv``, or why it is none."""
    source, zero = _source(conv.inputs[0])
    if source is None:
        return "it reads floats"
    scale = producer(conv.inputs[1], "DequantizeLinear")
    weights = constant(scale.inputs[0]) if scale is not None else None
    if weights is None:
        return "its weights are no integers"
    group = conv.attrs.get("group", 1)
    if group != 1 and (group != weights.shape[0] or weights.shape[1] != 1):
        return "its channels are grouped"
    if list(conv.attrs.get("dilations", [1, 1])) != [1, 1]:
        return "it is dilated"
    if codebook_of(weights).bits > _MAX_BITS:
        return "its weights pass 8 bits"
    if source.op == "MultiThreshold" and not _table_fits(source):
        return "its input has too many thresholds"
    outputs = weights.shape[0]
    multiplier, end = _constant_after("Mul", conv.outputs[0], outputs, 1)
    bias, end = _constant_after("Add", end, outputs, 0)
    layer = _Layer(conv, source, zero, weights, multiplier, bias, end)
    _fuse_addends(layer, claimed)
    if not layer.addends:
        _fuse_pool(layer)
    return layer


def _source(tensor: gs.Tensor) -> tuple[gs.Node | None, int]:
    """What makes the codes behind ``tensor``, and what is taken from them."""
    cast = producer(tensor, "Cast")
    cells = producer(cast.inputs[0], "Cells") if cast is not None else None
    if cells is not None:
        return cells, 0
    sub = producer(tensor, "Sub")
    taken = constant(sub.inputs[1]) if sub is not None else None
    if sub is not None and taken is not None and taken.size == 1:
        quantizer = producer(sub.inputs[0], "MultiThreshold")
        zero, _ = centred_uses(sub.inputs[0])
        return (quantizer, int(zero)) if zero else (None, 0)
    return producer(tensor, "MultiThreshold"), 0


def _table_fits(quantizer: gs.Node) -> bool:
    table = constant(quantizer.inputs[1])
    return table is not None and ascending(table) and table.shape[1] <= _MAX_THRESHOLDS


def _only_reader(tensor: gs.Tensor, *ops: str) -> gs.Node | None:
    """The one node that reads ``tensor``, if it is of one of ``ops``."""
    if len(tensor.outputs) != 1 or tensor.outputs[0].op not in ops:
        return None
    return tensor.outputs[0]


def _constant_after(
    op: str, tensor: gs.Tensor, channels: int, neutral: float
) -> tuple[np.ndarray, gs.Tensor]:
    """What alone is done to ``tensor``, one number a channel, and the result; else ``neutral``.

    Where a chain was folded whole, thresholds are compared with the sums themselves: times 1 plus 0
    leaves them as they are.
    """
    node = _only_reader(tensor, op)
    row = _row(node, tensor, channels)
    if node is None or row is None:
        return np.full(channels, neutral, dtype=np.float32), tensor
    return row, node.outputs[0]


def _row(node: gs.Node | None, data: gs.Tensor, channels: int) -> np.ndarray | None:
    """The constant operand of ``node`` beside ``data``, one number a channel."""
    if node is None:
        return None
    others = [tensor for tensor in node.inputs if tensor is not data]
    value = constant(others[0]) if len(others) == 1 else None
    if value is None or value.size not in (1, channels) or value.shape not in ((), (value.size,)):
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), channels), dtype=np.float32)


def _fuse_addends(layer: _Layer, claimed: set[int]) -> None:
    while len(layer.addends) < _MAX_ADDENDS:
        added = _only_reader(layer.end, "Add")
        others = [t for t in added.inputs if t is not layer.end] if added is not None else []
        if added is None or len(others) != 1 or isinstance(others[0], gs.Constant):
            return
        if id(added) in claimed:
            return
        claimed.add(id(added))
        layer.addends.append(_scaled(others[0]))
        layer.end = added.outputs[0]


def _scaled(tensor: gs.Tensor) -> tuple[gs.Tensor, float]:
    """``tensor`` as another one times a number."""
    product = producer(tensor, "Mul")
    if product is None:
        return tensor, 1.0
    for index in (0, 1):
        value = constant(product.inputs[index])
        if value is not None and value.size == 1 and value.dtype == np.float32:
            return product.inputs[1 - index], float(value.reshape(()))
    return tensor, 1.0


def _fuse_pool(layer: _Layer) -> None:
    """A Relu, and a square maximum pooling behind it or without it."""
    relu = _only_reader(layer.end, "Relu")
    end = relu.outputs[0] if relu is not None else layer.end
    pool = _only_reader(end, "MaxPool")
    window = _window(pool) if pool is not None and pool.domain == NHWC else None
    if pool is not None and window is not None:
        layer.pool, end = window, pool.outputs[0]
    layer.relu, layer.end = relu is not None, end


def _window(pool: gs.Node) -> tuple[int, int, int] | None:
    """Size, stride and padding of a pooling that is the same on all sides."""
    attrs = pool.attrs
    size, pads = attrs["kernel_shape"], attrs.get("pads", [0] * 4)
    stride = attrs.get("strides", [1, 1])
    alike = len(set(size)) == len(set(stride)) == len(set(pads)) == 1
    plain = not attrs.get("ceil_mode", 0) and set(attrs.get("dilations", [1])) == {1}
    if not alike or not plain or not max(size[0], stride[0]) <= _MAX_POOL or pads[0] >= size[0]:
        return None
    return int(size[0]), int(stride[0]), int(pads[0])


def _fuse_quantizer(layer: _Layer, taken: set[int]) -> None:
    """The first quantizer that reads the layer's result, its unfolded chain included."""
    for reader in layer.end.outputs:
        quantizer, chain = _behind_chain(reader, layer.end, layer.weights.shape[0])
        if quantizer is None or id(quantizer) in taken or not _table_fits(quantizer):
            continue
        layer.quantizer, layer.chain = quantizer, chain
        taken.add(id(quantizer))
        return


def _behind_chain(
    reader: gs.Node, data: gs.Tensor, channels: int
) -> tuple[gs.Node | None, list[np.ndarray]]:
    """The quantizer that ``reader`` leads to, and shift, slope and shift on the way to it.

    A shift that is not there is 0: that changes no float but -0, and no comparison.
    """
    if reader.op == "MultiThreshold":
        return reader, []
    chain = []
    node: gs.Node | None = reader
    for op in ("Add", "PRelu", "Add"):
        if node is None or node.op != op:
            chain.append(np.zeros(channels, dtype=np.float32))
            continue
        row = _row(node, data, channels)
        if row is None:
            return None, []
        chain.append(row)
        data = node.outputs[0]
        node = data.outputs[0] if len(data.outputs) == 1 else None
    if node is None or node.op != "MultiThreshold" or data is not node.inputs[0]:
        return None, []
    return node, chain


class _Codes:
    """The codes of one quantizer (or the stem's cells), as native layers write and read them."""

    def __init__(self, node: gs.Node, layers: list[_Layer]) -> None:
        self.node = node
        self.is_cells = node.op == "Cells"
        readers = [layer for layer in layers if layer.source is node]
        pads = [layer.conv.attrs.get("pads", [0] * 4) for layer in readers]
        self.halo = [max((int(p[side]) for p in pads), default=0) for side in range(4)]
        if not self.is_cells:  # the same on all sides
            self.halo = [max(self.halo)] * 4
        self.zero = readers[0].zero if readers else 0
        self.top = _PIXEL_TOP if self.is_cells else largest_code(node)
        self.layer = str(node.attrs.get("layer", node.name))
        self.readers = {id(layer.conv) for layer in readers}
        base = node.outputs[0].name if self.is_cells else f"{self.layer}.codes"
        #: uint8, with its border.
        self.padded = gs.Variable(base + HALO if self.halo[0] and not self.is_cells else base)
        node.outputs[0].name = f"{base}.replaced"

    def write_rest(self, graph: gs.Graph, fused: set[int]) -> None:
        """Make the codes, if no layer did, and give them to readers that are not native."""
        if self.is_cells:
            attrs = {**self.node.attrs, "halo": self.halo}
            self._native(graph, "Cells", [self.node.inputs[0]], attrs)
        elif id(self.node) not in fused:
            attrs = {"out_halo": self.halo[0], "out_pad_code": self.zero}
            self._native(graph, "Threshold", list(self.node.inputs), attrs)
        old = self.node.outputs[0]
        if not self.is_cells and old.outputs:
            replace_uses(graph, old, self._plain_floats(graph))
        self.node.outputs.clear()

    def _native(
        self, graph: gs.Graph, op: str, inputs: list[gs.Tensor], attrs: dict[str, object]
    ) -> None:
        name = f"{self.padded.name}/{op}"
        graph.nodes.append(gs.Node(op, name, attrs, inputs, [self.padded], domain=DOMAIN))

    def _plain_floats(self, graph: gs.Graph) -> gs.Tensor:
        """Without the border, as floats: what portable readers take."""
        tensor: gs.Tensor = self.padded
        if self.halo[0]:
            tensor = crop(graph, f"{self.layer}.codes.inner", tensor, self.halo[0])
        return insert(graph, "Cast", f"{self.layer}.codes.inner.float", [tensor], {"to": _FLOAT})


def crop(graph: gs.Graph, name: str, tensor: gs.Tensor, halo: int) -> gs.Tensor:
    """``tensor`` ``[N, H, W, C]`` without a border of ``halo``."""
    names = {"start": [halo, halo], "end": [-halo, -halo], "axes": [1, 2]}
    limits = [
        shared_constant(graph, f"halo{halo}.{what}", np.array(value, dtype=np.int64))
        for what, value in names.items()
    ]
    return insert(graph, "Slice", name, [tensor, *limits])


def packed_bits(index: np.ndarray, bits: int) -> np.ndarray:
    """Integers below ``2^bits``, one behind the other, lowest bit first: uint8 ``[bytes]``."""
    each = (index.reshape(-1, 1) >> np.arange(bits)) & 1
    return np.packbits(each.astype(np.uint8), bitorder="little")


def _write_layer(
    graph: gs.Graph, layer: _Layer, codes: dict[int, _Codes], floats: dict[int, gs.Tensor]
) -> None:
    """``floats``: what earlier layers wrote in place of a tensor, by its id; added to."""
    weights, attrs = layer.weights.astype(np.int64), layer.conv.attrs
    source = codes[id(layer.source)]
    written = codes[id(layer.quantizer)] if layer.quantizer is not None else None
    book = codebook_of(weights)
    index = (weights.transpose(0, 2, 3, 1) - book.first) // book.stride
    halo = written.halo[0] if written is not None else 0
    stem = _layer_name(layer)

    def rows(what: str, value: np.ndarray | None) -> gs.Tensor:
        return gs.Variable.empty() if value is None else gs.Constant(f"{stem}.{what}", value)

    shift_in, slope, shift_out = layer.chain or (None, None, None)
    inputs = [
        source.padded,
        gs.Constant(f"{stem}.packed", packed_bits(index, book.bits)),
        rows("multiplier", layer.multiplier),
        rows("bias", layer.bias),
        layer.quantizer.inputs[1] if layer.quantizer is not None else gs.Variable.empty(),
        rows("shift_in", shift_in),
        rows("slope", slope),
        rows("shift_out", shift_out),
        *(floats.get(id(tensor), tensor) for tensor, _ in layer.addends),
    ]
    while inputs[-1].is_empty():
        inputs.pop()
    group = int(attrs.get("group", 1))
    node_attrs = {
        "in_channels": int(weights.shape[1]) * group,
        "out_channels": int(weights.shape[0]),
        "groups": group,
        "kernel": [int(side) for side in weights.shape[2:]],
        "stride": [int(v) for v in attrs.get("strides", [1, 1])],
        "pads": [int(v) for v in attrs.get("pads", [0] * 4)],
        "in_halo": source.halo,
        "out_halo": halo,
        "top_code": source.top,
        "pad_code": layer.zero,
        "out_pad_code": written.zero if written is not None else 0,
        "bits": book.bits,
        "first": book.first,
        "step": book.stride,
        "relu": int(layer.relu),
        "pool": list(layer.pool),
        "addends": len(layer.addends),
        "factors": [factor for _, factor in layer.addends] or [1.0],
    }
    others = [r for r in layer.end.outputs if r is not _first_of_chain(layer)]
    keep = bool(others) or layer.end in graph.outputs
    z = gs.Variable(layer.end.name) if keep else None
    outputs = [written.padded if written is not None else gs.Variable.empty()]
    if z is not None:
        outputs.append(z)
    if z is not None:
        replace_uses(graph, layer.end, z)
        layer.end.name += ".replaced"
        floats[id(layer.end)] = z
    for maker in list(layer.end.inputs):
        maker.outputs.clear()
    graph.nodes.append(
        gs.Node("QuantConv", f"{stem}/QuantConv", node_attrs, inputs, outputs, domain=DOMAIN)
    )


def _layer_name(layer: _Layer) -> str:
    scale = producer(layer.conv.inputs[1], "DequantizeLinear")
    assert scale is not None  # noqa: S101 - it was matched
    return str(scale.inputs[0].name).removesuffix(".codes").removesuffix(".weight")


def _first_of_chain(layer: _Layer) -> gs.Node | None:
    """The reader of the layer's result through which the fused quantizer gets it."""
    node = layer.quantizer
    while node is not None and node.inputs[0] is not layer.end:
        node = node.inputs[0].inputs[0]
    return node
