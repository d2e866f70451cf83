"""Probes: the code tensors of an exported model, made visible as extra outputs.

Marking every tensor would break the fusions that are to be tested; only quantizer boundaries are
marked, where the tensor is an integer code in any runtime.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..runtime.probes import BYTES_LAST, LAYOUT, SUFFIX, are_last
from .errors import ParityError

if TYPE_CHECKING:
    import onnx

#: What follows the name of a code tensor that is written with a border (native operators).
HALO = ".halo"


def note_layout(model: onnx.ModelProto) -> None:
    """Write into ``model`` that its code tensors are UINT8 ``[N, H, W, C]``."""
    model.metadata_props.add(key=LAYOUT, value=BYTES_LAST)


def codes_are_last(model: onnx.ModelProto) -> bool:
    """Whether the code tensors of ``model`` are UINT8 ``[N, H, W, C]``."""
    return are_last({p.key: p.value for p in model.metadata_props})


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


def _crop(model: onnx.ModelProto, extra: onnx.ModelProto) -> None:
    """Into ``extra``: what makes code tensors without their border of padding (:data:`HALO`).

    Only probes read them so: the model's own layers need the border.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    made = {out for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        name = node.output[0].removesuffix(HALO)
        if name == node.output[0] or name in made:
            continue
        halo = next(a.i for a in node.attribute if a.name == "out_halo")
        limits = {"start": [halo] * 2, "end": [-halo] * 2, "axes": [1, 2]}
        for what, value in limits.items():
            stored = numpy_helper.from_array(np.array(value, dtype=np.int64), f"{name}.{what}")
            extra.graph.initializer.append(stored)
        operands = [node.output[0], *(f"{name}.{what}" for what in limits)]
        extra.graph.node.append(helper.make_node("Slice", operands, [name], name=f"{name}/probe"))


class Probes(NamedTuple):
    """What makes the code tensors of a model further outputs of it.

    Attributes:
        suffix: a part of a model: nodes, initializers, outputs; the model's bytes and then these
            are the probed model.
        names: of the outputs.
        last: whether they are channels-last.
    """

    suffix: bytes
    names: list[str]
    last: bool


class Probed(NamedTuple):
    """A model with further outputs: its bytes, their names, and whether they are channels-last."""

    model: bytes
    names: list[str]
    last: bool


def probes_of(model: onnx.ModelProto) -> Probes:
    """The probes of ``model``; of a full-precision one they are empty."""
    import onnx
    from onnx import helper

    tensors = code_tensors(model)
    extra = onnx.ModelProto()
    _crop(model, extra)
    for name, kind in tensors.items():
        extra.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    suffix = bytes(extra.SerializeToString(deterministic=True)) if tensors else b""
    return Probes(suffix, list(tensors), codes_are_last(model))


def with_probes(path: str | os.PathLike[str], *, quantized: bool = True) -> Probed:
    """The model of ``path`` with its code tensors as further outputs.

    Args:
        path: the ONNX file.
        quantized: whether it must have code tensors; a full-precision model has none.

    Raises:
        ParityError: not an ONNX file, or one without code tensors that should have them.
    """
    import onnx

    try:
        data = Path(path).read_bytes()
        model = onnx.load_from_string(data)
    except Exception as error:
        raise ParityError(f"{path}: not a readable ONNX model ({error})") from error
    probes = probes_of(model)
    if quantized and not probes.names:
        raise ParityError(f"{path}: no code tensors in it; qmdd did not export this model")
    return Probed(data + probes.suffix, probes.names, probes.last)
