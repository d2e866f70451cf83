"""The QONNX dialect: its operators, widths and annotations, and the qonnx package's own codes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qmdd.exporter import qonnx_session
from qmdd.exporter.errors import ExportError, ParityError
from qmdd.exporter.export import CONTRACT, export_bundle
from qmdd.exporter.lower import check_model, node_counts, onnx_for_target
from qmdd.exporter.parity import compare, verify_bundle
from qmdd.exporter.passes.qonnx_operators import DOMAIN, Width, width_of
from qmdd.exporter.targets import find_target
from qmdd.models import Detector, quantised_chains
from qmdd.models.conv import QuantConv2d
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.errors import SessionError
from qmdd.runtime.sessions import open_session

needs_qonnx = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="qonnx wants an onnx that is too old for us on Python 3.10"
)
TraceOnce = Callable[[Detector], onnx.ModelProto]
TARGET = find_target("qonnx")


def _lower(trace_once: TraceOnce, detector: Detector) -> onnx.ModelProto:
    model = onnx_for_target(trace_once(detector), TARGET, "own", TARGET.opset).model
    check_model(model)
    return model


def _annotations(model: onnx.ModelProto) -> dict[str, str]:
    return {
        note.tensor_name: note.quant_parameter_tensor_names[0].value
        for note in model.graph.quantization_annotation
    }


@needs_qonnx
@pytest.mark.parametrize(
    ("arch", "bits", "options"),
    [
        ("resnet23", 1, {}),
        ("resnet23", 2, {}),
        ("resnet23", 3, {}),
        ("resnet23", 4, {}),
        ("resnet23", 8, {}),
        ("resnet23", 2, {"representation": "rgb"}),
        ("resnet23", 4, {"activation": "minmax", "weight": "minmax"}),
        ("mobilenetv2", 1, {}),
        ("mobilenetv2", 2, {}),
        ("mobilenetv2", 3, {}),
        ("mobilenetv2", 4, {}),
    ],
)
def test_qonnx_gives_the_sources_codes(
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    pictures: list[Path],
    tmp_path: Path,
    arch: str,
    bits: int,
    options: dict[str, Any],
) -> None:
    detector = make_detector(arch, bits, **options)
    path = tmp_path / "model.onnx"
    path.write_bytes(_lower(trace_once, detector).SerializeToString())
    (tier,) = compare(detector, path, pictures, CONTRACT, runtime="qonnx")
    assert tier.tier == "deployed"
    assert tier.codes_compared > 0
    assert tier.wrong_codes == 0, tier.to_dict()
    assert tier.passed, tier.to_dict()


def test_the_graph_is_made_of_qonnx_operators(small: Detector, trace_once: TraceOnce) -> None:
    model = _lower(trace_once, small)
    layers = len(quantised_chains(small))
    convolutions = sum(isinstance(module, QuantConv2d) for module in small.modules())
    counts = node_counts(model)
    assert (counts["MultiThreshold"], counts["Quant"]) == (layers, convolutions)
    assert not {"Cast", "DequantizeLinear", "QuantizeLinear", "Sub"} & counts.keys()
    domains = Counter(node.domain for node in model.graph.node)
    assert domains.pop(DOMAIN) == layers + convolutions
    assert set(domains) == {""}
    assert {(item.domain, item.version) for item in model.opset_import} == {("", 17), (DOMAIN, 1)}
    assert len(model.functions) == 0


def test_every_shape_and_data_type_is_known(small: Detector, trace_once: TraceOnce) -> None:
    """FINN builds for one shape, and folds by the width of each tensor."""
    model = _lower(trace_once, small)
    known = {value.name for value in model.graph.value_info} | {"logit"}
    assert {name for node in model.graph.node for name in node.output} == known
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 3, 256, 256]
    types = _annotations(model)
    assert types["image"] == "UINT8"
    for node in model.graph.node:
        if node.op_type == "MultiThreshold":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes == {
                "out_dtype": b"UINT2",
                "out_scale": 1.0,
                "out_bias": 0.0,
                "data_layout": b"NCHW",
            }
            assert types[node.output[0]] == "UINT2"
    weights = [node for node in model.graph.node if node.op_type == "Quant"]
    assert Counter(types[node.output[0]] for node in weights[1:]) == {"INT3": len(weights) - 1}
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in weights[1:]:
        codes, scale, zero, bits = (stored[name] for name in node.input)
        assert set(np.unique(codes)) <= {-3.0, -1.0, 1.0, 3.0}
        assert (scale, zero, bits) == (1.0, 0.0, 3.0)


@needs_qonnx
def test_qonnx_reads_the_annotations_and_cleans_the_model_up(
    small: Detector, trace_once: TraceOnce
) -> None:
    """What an FPGA flow does first; it changes no code."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.util.cleanup import cleanup_model

    model = _lower(trace_once, small)
    onnx_model = onnx.ModelProto.FromString(model.SerializeToString())
    from qmdd.exporter.qonnx_model import fix_shapes

    fix_shapes(onnx_model, (1, 3, 64, 64))
    plain = ModelWrapper(onnx_model)
    cleaned = cleanup_model(plain).transform(InferDataTypes())
    image = np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64)).astype(np.float32)
    before = execute_onnx(plain, {plain.graph.input[0].name: image})
    after = execute_onnx(cleaned, {cleaned.graph.input[0].name: image})
    np.testing.assert_array_equal(
        after[cleaned.graph.output[0].name], before[plain.graph.output[0].name]
    )
    found = Counter(
        cleaned.get_tensor_datatype(node.output[0]).name
        for node in cleaned.graph.node
        if node.op_type == "MultiThreshold"
    )
    assert found == {"UINT2": len(quantised_chains(small))}


@pytest.mark.parametrize(
    ("low", "high", "odd", "expected"),
    [
        (0, 1, False, ("BINARY", 1, False)),
        (0, 3, False, ("UINT2", 2, False)),
        (0, 255, False, ("UINT8", 8, False)),
        (-1, 1, True, ("BIPOLAR", 1, True)),
        (-1, 1, False, ("INT2", 2, True)),
        (-2, 1, False, ("INT2", 2, False)),
        (-3, 3, True, ("INT3", 3, True)),
        (-15, 15, True, ("INT5", 5, True)),
        (-128, 127, False, ("INT8", 8, False)),
        (-271, 282, False, ("INT10", 10, True)),
        (-1, 2, False, ("INT3", 3, True)),
    ],
)
def test_widths_are_the_narrowest(
    low: int, high: int, odd: bool, expected: tuple[str, int, bool]
) -> None:
    width = width_of(low, high, odd=odd)
    assert isinstance(width, Width)
    assert (width.name, width.bits, width.narrow) == expected


@needs_qonnx
@pytest.mark.usefixtures("shallow", "quick_trace")
def test_a_bundle_is_exported_verified_and_refused_elsewhere(
    checkpoints: dict[str, Path], pictures: list[Path], tmp_path: Path
) -> None:
    place = tmp_path / "bundle"
    result = export_bundle(checkpoints["frozen"], place, target="qonnx", images=pictures)
    assert result.passed
    assert [(tier.tier, tier.runtime) for tier in result.parity] == [("deployed", "qonnx")]
    again = verify_bundle(place, checkpoint=checkpoints["frozen"], images=pictures)
    assert again.passed
    with pytest.raises(SessionError, match="scores no images here; export the checkpoint with"):
        open_session(Bundle.open(place))
    for refused in ({"tiers": ("strict",)}, {"runtime": "openvino"}):
        with pytest.raises(ParityError, match=r"no strict tier|runs in qonnx alone"):
            verify_bundle(
                place,
                checkpoint=checkpoints["frozen"],
                images=pictures,
                **refused,  # type: ignore[arg-type]
            )


@needs_qonnx
@pytest.mark.usefixtures("shallow", "quick_trace")
def test_a_changed_threshold_is_seen(
    small: Detector, trace_once: TraceOnce, pictures: list[Path], tmp_path: Path
) -> None:
    model = _lower(trace_once, small)
    node = next(node for node in model.graph.node if node.op_type == "MultiThreshold")
    table = next(t for t in model.graph.initializer if t.name == node.input[1])
    values = onnx.numpy_helper.to_array(table).copy() + np.float32(0.05)
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (tier,) = compare(small, path, pictures, CONTRACT, runtime="qonnx")
    assert tier.wrong_codes > 0
    assert not tier.passed


def test_a_missing_qonnx_is_named_before_the_work(
    small: Detector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    monkeypatch.setitem(sys.modules, "qonnx", None)
    with pytest.raises(SessionError, match=r"pip install 'qmdd\[qonnx\]'.*Python 3\.11"):
        qonnx_session.QonnxSession(b"")
    with pytest.raises(SessionError, match="--no-verify"):
        export_bundle(checkpoints["frozen"], tmp_path / "bundle", target="qonnx")
    assert not (tmp_path / "bundle").exists()


def test_weights_have_no_storage_to_choose(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ExportError, match="leave --weights out"):
        export_bundle(checkpoints["frozen"], tmp_path / "b", target="qonnx", weights="int8")
