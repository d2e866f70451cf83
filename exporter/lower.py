"""Canonical ONNX to target ONNX: run the target's passes and write the packed constants."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.packing import pack_plane
from .errors import ExportError
from .multithreshold import DOMAIN, OPSET, add_function
from .targets import Target, passes_of

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs


@dataclasses.dataclass
class Lowered:
    """A target model and the account of how it came about."""

    model: onnx.ModelProto
    #: ``(pass, times applied)``, in order.
    applied: list[tuple[str, int]]
    #: What a pass left as it was, and why.
    notes: list[str]
    #: ``(channels, thresholds)`` of every quantizer's table, by its layer, in the graph's order.
    tables: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


def onnx_for_target(
    canonical: onnx.ModelProto,
    target: Target,
    storage: str,
    opset: int,
    precision: str = "int8",
    *,
    microsoft: bool = False,
    native: bool = False,
) -> Lowered:
    """Lower ``canonical`` for ``target``.

    Args:
        storage: one of :data:`.passes.pack_weights.STORAGES`.
        opset: opset of the result, within ``target.opsets``.
        precision: of an engine, one of its ``precisions``.
        microsoft: ONNX Runtime's own operators may be written (the form ``cpu``).
        native: write the target's second model, for our native operators.

    Raises:
        ExportError: an opset out of range, or a pass that cannot keep the model exact.
    """
    import onnx_graphsurgeon as gs
    from onnx import helper

    from .passes.base import tidy
    from .passes.engine_blob import int4_constants
    from .passes.pack_weights import packed_constants
    from .passes.qonnx_operators import datatypes
    from .passes.scaled_products import MICROSOFT
    from .probes import note_layout
    from .qonnx_model import finish_qonnx

    low, high = target.opsets
    if not low <= opset <= high:
        raise ExportError(f"target {target.name} is written at opset {low} to {high}, not {opset}")
    graph = gs.import_onnx(canonical)
    applied: list[tuple[str, int]] = []
    notes: list[str] = []
    tables: dict[str, tuple[int, int]] = {}
    passes = passes_of(target, storage, opset, precision, microsoft=microsoft, native=native)
    for name, run in passes:
        outcome = run(graph)
        tables = _tables(graph) or tables  # the last pass leaves no MultiThreshold
        applied.append((name, outcome.applied))
        notes.extend(f"{name}: {note}" for note in outcome.notes)
    tidy(graph)
    _forget_shapes(graph)
    packed, signed = packed_constants(graph), int4_constants(graph)
    if opset < 18:
        _forget_antialias(graph)
    graph.opset = opset
    domains = {node.domain for node in graph.nodes}
    model = gs.export_onnx(graph)
    own = any((node.domain, node.op) == (DOMAIN, "MultiThreshold") for node in graph.nodes)
    _set_header(model, opset, own)
    if DOMAIN in domains and native:
        model.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
    if MICROSOFT in domains:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    if target.form == "cpu":
        note_layout(model)
    _pack_initializers(model, packed, signed)
    _name_nodes(model)
    if target.form == "qonnx":
        finish_qonnx(model, datatypes(graph))
    return Lowered(model, applied, notes, tables)


def _tables(graph: gs.Graph) -> dict[str, tuple[int, int]]:
    """Shapes of the tables of all ``MultiThreshold``."""
    found = {}
    for node in graph.nodes:
        if node.op == "MultiThreshold":
            channels, count = node.inputs[1].shape
            found[str(node.attrs.get("layer", node.name))] = (int(channels), int(count))
    return found


def _forget_shapes(graph: gs.Graph) -> None:
    """The graph was traced at one size but depends on none: batch and both sides become free."""
    for tensor in graph.tensors().values():
        if type(tensor).__name__ == "Variable":
            tensor.shape, tensor.dtype = None, None
    (image,), (logit,) = graph.inputs, graph.outputs
    image.dtype, image.shape = np.uint8, ["N", 3, "H", "W"]
    logit.dtype, logit.shape = np.float32, ["N"]


def _set_header(model: onnx.ModelProto, opset: int, own_domain: bool) -> None:
    from onnx import helper

    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    del model.functions[:]
    if own_domain:
        add_function(model)
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), True)
    model.producer_name, model.producer_version = "qmdd", ""
    model.graph.name = "qmdd"
    del model.graph.value_info[:]


def _forget_antialias(graph: gs.Graph) -> None:
    """``Resize`` has these attributes since opset 18; the tracer writes their defaults."""
    for node in graph.nodes:
        if node.op == "Resize":
            node.attrs.pop("antialias", None)
            node.attrs.pop("keep_aspect_ratio_policy", None)


def _pack_initializers(
    model: onnx.ModelProto, widths: dict[str, int], signed: Iterable[str] = ()
) -> None:
    """Write the noted constants, a byte an element, as raw data of their width, the first lowest.

    Args:
        widths: names of uint8 constants that become UINT2 or UINT4.
        signed: names of int8 constants that become INT4.
    """
    from onnx import TensorProto

    types = {2: TensorProto.UINT2, 4: TensorProto.UINT4}
    kinds = {
        **{name: (width, types[width]) for name, width in widths.items()},
        **dict.fromkeys(signed, (4, TensorProto.INT4)),
    }
    for tensor in model.graph.initializer:
        if tensor.name in kinds:
            width, kind = kinds[tensor.name]
            values = np.frombuffer(tensor.raw_data, dtype=np.uint8)
            tensor.raw_data = pack_plane(values & np.uint8(2**width - 1), width).tobytes()
            tensor.data_type = kind


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a unique name that does not depend on anything but the graph."""
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        base = node.name if "/" in node.name else node.op_type
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base]}"


def node_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by operator, in name order."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def check_model(model: onnx.ModelProto) -> None:
    """``onnx.checker`` with shape inference; :class:`ExportError` with its message."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(f"the exported model fails onnx.checker: {error}") from error


def check_quantised(model: onnx.ModelProto) -> None:
    """Assert what the interchange form promises, by looking at the graph that was written.

    Every convolution reads weights through DequantizeLinear; every one but the stem reads
    activations through QuantizeLinear and DequantizeLinear; no logarithm is left.

    Raises:
        ExportError: a promise that the graph does not keep.
    """
    makers: dict[str, Any] = {out: node for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        if node.op_type == "Log":
            raise ExportError(f"{node.name}: a logarithm is left in the graph")
        if node.op_type != "Conv":
            continue
        data, weight = makers.get(node.input[0]), makers.get(node.input[1])
        if weight is None or weight.op_type != "DequantizeLinear":
            raise ExportError(f"{node.name}: its weights do not come through DequantizeLinear")
        if data is not None and _is_pixels(data, makers):
            continue
        codes = makers.get(data.input[0]) if data is not None else None
        if data is None or data.op_type != "DequantizeLinear" or codes is None:
            raise ExportError(f"{node.name}: its activations do not come through DequantizeLinear")
        if codes.op_type != "QuantizeLinear":
            raise ExportError(f"{node.name}: its activations do not come through QuantizeLinear")


def _is_pixels(node: onnx.NodeProto, makers: dict[str, Any]) -> bool:
    """Whether ``node`` gives raw pixels, or these minus a constant."""
    if node.op_type == "Sub" and node.input[1] not in makers:
        node = makers.get(node.input[0], node)
    return node.op_type == "Cast" and node.input[0] == "image"
