"""The model for our native operators: its structure, and its codes beside the portable form's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from qmdd.exporter.lower import Lowered, onnx_for_target
from qmdd.exporter.multithreshold import DOMAIN
from qmdd.exporter.passes.base import Outcome, constant
from qmdd.exporter.passes.channels_last import NHWC
from qmdd.exporter.passes.native_conv import NATIVE_OPS, native_conv, packed_bits
from qmdd.exporter.passes.native_pool import native_pool
from qmdd.exporter.probes import HALO, with_probes
from qmdd.exporter.targets import find_target, passes_of
from qmdd.models import Detector
from qmdd.runtime import native
from qmdd.runtime.session import OnnxSession

TARGET = find_target("cpu")
TraceOnce = Callable[[Detector], onnx.ModelProto]
needs_library = pytest.mark.skipif(native.library_path() is None, reason=native.why_absent())
NETWORKS = [
    ("resnet23", 2, {}),
    ("resnet50", 3, {}),
    ("mobilenetv2", 4, {}),
    ("resnet23", 4, {"activation": "minmax", "weight": "minmax"}),
    ("resnet23", 1, {"representation": "rgb", "cqb": False}),
    ("resnet23", 8, {"activation": "lsq"}),
]
IDS = [f"{arch}-{bits}" + "".join(f"-{v}" for v in kw.values()) for arch, bits, kw in NETWORKS]


def lowered(canonical: onnx.ModelProto, *, own: bool) -> Lowered:
    return onnx_for_target(canonical, TARGET, "own", TARGET.opset, native=own)


def own_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def graph_until(canonical: onnx.ModelProto, last: str) -> gs.Graph:
    """The graph behind the passes up to ``last``, which is left out."""
    graph = gs.import_onnx(canonical)
    for name, run in passes_of(TARGET, "own", TARGET.opset, "int8", native=True):
        if name == last:
            return graph
        run(graph)
    raise AssertionError(last)


@needs_library
@pytest.mark.parametrize(("arch", "bits", "options"), NETWORKS, ids=IDS)
def test_every_code_is_that_of_the_portable_form(
    make_detector: Callable[..., Detector], trace_once: TraceOnce, tmp_path: Path,
    arch: str, bits: int, options: dict[str, Any],
) -> None:  # fmt: skip
    """The portable form's own codes are compared with the source elsewhere, as are all bundles'."""
    canonical = trace_once(make_detector(arch, bits, **options))
    images = np.random.default_rng(4).integers(0, 256, (2, 3, 38, 46), dtype=np.uint8)
    found = []
    for own in (False, True):
        path = tmp_path / f"{own}.onnx"
        onnx.save(lowered(canonical, own=own).model, path)
        probed = with_probes(path)
        library = native.require_library() if own else None
        session = OnnxSession(probed.model, outputs=["logit", *probed.names], library=library)
        found.append(session.run(images))
    portable, ours = found
    assert set(portable) == set(ours)
    for name, codes in portable.items():
        if name == "logit":
            np.testing.assert_allclose(codes, ours[name], atol=1e-5)
        else:
            np.testing.assert_array_equal(codes, ours[name], err_msg=name)


def test_the_structure_of_a_resnet23(
    make_detector: Callable[..., Detector], trace_once: TraceOnce
) -> None:
    canonical = trace_once(make_detector("resnet23", 2))
    model = lowered(canonical, own=True).model
    layers = sum(node.op_type == "Conv" for node in canonical.graph.node)
    quantizers = sum(node.op_type == "MultiThreshold" for node in canonical.graph.node)
    own = own_nodes(model)
    assert set(Counter(node.op_type for node in own)) <= {*NATIVE_OPS, "MeanPool"}
    convs = [node for node in own if node.op_type == "QuantConv"]
    assert len(convs) == layers
    assert sum(bool(node.output[0]) for node in convs) == quantizers  # each made in passing
    others = {node.op_type for node in model.graph.node if node.domain != DOMAIN}
    assert others <= {"Concat", "Gemm", "Max", "Mul", "ReduceMean", "Squeeze"}
    stem = attributes(convs[0])
    assert (stem["pool"], stem["relu"], stem["top_code"]) == ([3, 2, 1], 1, 255)
    # Codes have the border that the 3x3 convolutions behind them need, and no layer copies them.
    for node in convs:
        attrs = attributes(node)
        assert all(h >= p for h, p in zip(attrs["in_halo"], attrs["pads"], strict=True))
    assert all(node.output[0].endswith(HALO) for node in convs if node.output[0])
    assert [f.name for f in model.functions] == []
    assert {o.domain: o.version for o in model.opset_import} == {"": TARGET.opset, DOMAIN: 1}


def test_shortcuts_are_addends_in_the_order_of_the_source(
    make_detector: Callable[..., Detector], trace_once: TraceOnce
) -> None:
    model = lowered(trace_once(make_detector("resnet23", 2)), own=True).model
    addends = [attributes(node)["addends"] for node in own_nodes(model) if "Conv" in node.op_type]
    # The stem has none, the first of a block its CQB's, the second the block's own, too.
    assert addends[:3] == [0, 1, 2]
    assert not any(node.op_type == "Add" for node in model.graph.node)


@pytest.mark.parametrize("one", [native_conv, native_pool])
def test_a_second_run_applies_nowhere(
    make_detector: Callable[..., Detector], trace_once: TraceOnce, one: Callable[..., Outcome]
) -> None:
    graph = graph_until(trace_once(make_detector("resnet23", 2)), one.__name__)
    assert one(graph).applied > 0
    again = one(graph)
    assert (again.applied, again.notes) == (0, [])


def first_quantised(graph: gs.Graph) -> gs.Node:
    convs = [n for n in graph.nodes if n.op == "Conv" and n.domain == NHWC]
    return next(n for n in convs if n.inputs[0].inputs[0].op == "MultiThreshold")


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [("dilations", [2, 2], "it is dilated"), ("group", 2, "its channels are grouped")],
)
def test_what_does_not_fit_stays_portable_and_says_why(
    make_detector: Callable[..., Detector], trace_once: TraceOnce,
    attribute: str, value: Any, why: str,
) -> None:  # fmt: skip
    graph = graph_until(trace_once(make_detector("resnet23", 2)), "native_conv")
    conv = first_quantised(graph)
    conv.attrs[attribute] = value
    name = conv.name
    outcome = native_conv(graph)
    assert outcome.notes == [f"{name}: {why}; it stays portable"]
    left = [n for n in graph.nodes if n.op == "Conv" and n.domain == NHWC]
    assert [n.name for n in left] == [name]
    # It reads the same codes, made by the layer before it, as floats; nothing needs a border.
    cast = left[0].inputs[0].inputs[0]
    assert (cast.op, cast.inputs[0].inputs[0].op) == ("Cast", "QuantConv")


def test_poolings_that_do_not_fit_are_left(
    make_detector: Callable[..., Detector], trace_once: TraceOnce
) -> None:
    graph = graph_until(trace_once(make_detector("resnet23", 2)), "native_pool")
    pools = [n for n in graph.nodes if n.op == "AveragePool" and n.domain == NHWC]
    pools[0].attrs["kernel_shape"] = pools[0].attrs["strides"] = [1, 3]
    name = pools[0].name
    assert native_pool(graph).notes == [f"{name}: no pooling side by side of 1 or 2; left as it is"]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_packed_bits_are_read_back_lowest_first(bits: int) -> None:
    index = np.random.default_rng(bits).integers(0, 2**bits, 37)
    packed = packed_bits(index, bits)
    assert packed.nbytes == -(-37 * bits // 8)
    number = int.from_bytes(packed.tobytes(), "little")
    assert [number >> (bits * i) & (2**bits - 1) for i in range(37)] == index.tolist()


def test_weights_are_stored_at_their_own_width(
    make_detector: Callable[..., Detector], trace_once: TraceOnce
) -> None:
    graph = graph_until(trace_once(make_detector("resnet23", 3)), "native_conv")
    conv = first_quantised(graph)
    weights = constant(conv.inputs[1].inputs[0].inputs[0])
    assert weights is not None
    native_conv(graph)
    stored = {t.name: t for t in graph.tensors().values() if isinstance(t, gs.Constant)}
    name = next(name for name in stored if name.endswith("conv1.conv.packed"))
    assert stored[name].values.nbytes == -(-weights.size * 3 // 8)
