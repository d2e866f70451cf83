"""The stem's weights as a constant of floats, which ONNX Runtime lays out for its kernels once.

Weights that come through DequantizeLinear are unpacked at every run, and the convolution is not
blocked (measured: twice the time). DequantizeLinear is there because the optimiser would fold
the scale behind a convolution into constant weights, and sums of integers would be none any more.
Where nothing but a max pooling reads the sums (:mod:`.pool_first`), there is no such scale: no
optimiser moves a product through a maximum.

Pixels that NPR only moves (a Slice of them) are moved as bytes, and cast after that.

Assumes: ``MaxPool(Conv(x, DequantizeLinear(integers, 1)))``, the sums read by nothing else.
Guarantees: equal sums, as floats below 2^24; the integers are stored as they were.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Outcome, constant, insert, producer, replace_uses, tidy

_FLOAT = 1


def constant_stem(graph: gs.Graph) -> Outcome:
    """Rewrite the weights of every convolution that only a max pooling reads."""
    outcome = Outcome()
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        scale = producer(conv.inputs[1], "DequantizeLinear")
        codes = constant(scale.inputs[0]) if scale is not None else None
        readers = [node.op for node in conv.outputs[0].outputs]
        if scale is None or codes is None or readers != ["MaxPool"]:
            continue
        name = f"{conv.outputs[0].name}.weight"
        conv.inputs[1] = insert(graph, "Cast", name, [scale.inputs[0]], {"to": _FLOAT})
        outcome.applied += 1
    if outcome.modified:
        _slice_bytes(graph)
    if outcome.modified:
        tidy(graph)
    return outcome


def _slice_bytes(graph: gs.Graph) -> None:
    """``Slice(Cast(image))`` as ``Cast(Slice(image))``, as long as there is one."""
    graph.toposort()
    sliced: set[str] = set()
    for node in [node for node in graph.nodes if node.op == "Slice"]:
        cast = producer(node.inputs[0], "Cast")
        pixels = cast.inputs[0] if cast is not None else None
        if pixels is None or not (pixels in graph.inputs or pixels.name in sliced):
            continue
        out = node.outputs[0]
        bytes_ = insert(graph, "Slice", f"{out.name}.bytes", [pixels, *node.inputs[1:]])
        sliced.add(bytes_.name)
        replace_uses(
            graph, out, insert(graph, "Cast", f"{out.name}.cast", [bytes_], {"to": _FLOAT})
        )
        node.outputs.clear()
