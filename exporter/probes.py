"""Probes: the code tensors of an exported model, made visible as extra outputs.

Marking every tensor would break the fusions that are to be tested; only quantizer boundaries are
marked, where the tensor is an integer code in any runtime.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from .errors import ParityError

if TYPE_CHECKING:
    import onnx

#: Metadata of a model whose code tensors are channels-last bytes, and their layout.
_LAYOUT, _BYTES_LAST = "qmdd.codes", "uint8 NHWC"
#: What follows the name of a code tensor that is written with a border (native operators).
HALO = ".halo"
#: Suffix of a code tensor's name; what stands before it is the layer's.
SUFFIX = ".codes"


def note_layout(model: onnx.ModelProto) -> None:
    """Write into ``model`` that its code tensors are UINT8 ``[N, H, W, C]``."""
    model.metadata_props.add(key=_LAYOUT, value=_BYTES_LAST)


def codes_are_last(model: onnx.ModelProto) -> bool:
    """Whether the code tensors of ``model`` are UINT8 ``[N, H, W, C]``."""
    return any((p.key, p.value) == (_LAYOUT, _BYTES_LAST) for p in model.metadata_props)


def code_tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Code tensors and their element types, in the order of the graph.

    Channels-last they are bytes; else outputs of QuantizeLinear, or floats that hold whole numbers:
    of MultiThreshold, or where codes do not go through a QuantizeLinear as they are (8 bits in an
    engine, depthwise).
    """
    from onnx import TensorProto

    types = {t.name: t.data_type for t in model.graph.initializer}
    plain = TensorProto.UINT8 if codes_are_last(model) else TensorProto.FLOAT
    found: dict[str, int] = {}
    for node in model.graph.node:
        name = node.output[0].removesuffix(HALO)
        if not name.endswith(SUFFIX):
            continue
        found[name] = plain
        if node.op_type == "QuantizeLinear":
            zero = node.input[2] if len(node.input) > 2 else ""
            found[node.output[0]] = types.get(zero, TensorProto.UINT8)
    return found


def _crop(model: onnx.ModelProto) -> None:
    """Make code tensors that are written with a border of padding (:data:`HALO`) without it, too.

    Only probes read them so: the model's own layers need the border.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    made = {out for node in model.graph.node for out in node.output}
    for node in list(model.graph.node):
        name = node.output[0].removesuffix(HALO)
        if name == node.output[0] or name in made:
            continue
        halo = next(a.i for a in node.attribute if a.name == "out_halo")
        limits = {"start": [halo] * 2, "end": [-halo] * 2, "axes": [1, 2]}
        for what, value in limits.items():
            stored = numpy_helper.from_array(np.array(value, dtype=np.int64), f"{name}.{what}")
            model.graph.initializer.append(stored)
        operands = [node.output[0], *(f"{name}.{what}" for what in limits)]
        model.graph.node.append(helper.make_node("Slice", operands, [name], name=f"{name}/probe"))


def layer_of(tensor: str) -> str:
    """The layer that a code tensor belongs to."""
    return tensor.removesuffix(SUFFIX)


class Probed(NamedTuple):
    """A model with further outputs: its bytes, their names, and whether they are channels-last."""

    model: bytes
    names: list[str]
    last: bool


def with_probes(path: str | os.PathLike[str], *, quantized: bool = True) -> Probed:
    """The model of ``path`` with its code tensors as further outputs.

    Args:
        path: the ONNX file.
        quantized: whether it must have code tensors; a full-precision model has none.

    Raises:
        ParityError: not an ONNX file, or one without code tensors that should have them.
    """
    import onnx
    from onnx import helper

    try:
        model = onnx.load(path)
    except Exception as error:
        raise ParityError(f"{path}: not a readable ONNX model ({error})") from error
    tensors = code_tensors(model)
    if quantized and not tensors:
        raise ParityError(f"{path}: no code tensors in it; qmdd did not export this model")
    _crop(model)
    for name, kind in tensors.items():
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return Probed(model.SerializeToString(), list(tensors), codes_are_last(model))
