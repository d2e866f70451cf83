"""The portable form against its source: every kind of network, in both tiers; the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from qmdd.exporter.errors import ExportError
from qmdd.exporter.estimating import estimate_bundle
from qmdd.exporter.export import CONTRACT, export_bundle
from qmdd.exporter.lower import check_model, onnx_for_target
from qmdd.exporter.parity import compare, verify_bundle
from qmdd.exporter.plan import planned_layers
from qmdd.exporter.portable_graph import check_portable_graph
from qmdd.exporter.probes import codes_are_last
from qmdd.exporter.targets import find_target
from qmdd.models import Detector
from qmdd.models.conv import QuantConv2d
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.sessions import open_session

TARGET = find_target("cpu")
TraceOnce = Callable[[Detector], onnx.ModelProto]


@pytest.mark.parametrize(
    ("arch", "bits", "options", "opset"),
    [
        ("resnet23", 2, {"representation": "rgb", "cqb": False}, 21),
        ("resnet23", 3, {"activation": "lsq", "weight": "lsq", "slr": False}, 21),
        ("resnet23", 8, {"activation": "minmax", "weight": "minmax"}, 21),
        ("resnet23", 32, {}, 21),
        ("resnet50", 4, {"activation": "minmax", "weight": "n2uq"}, 25),
        ("mobilenetv2", 1, {"activation": "binary", "weight": "binary"}, 21),
    ],
    ids=lambda value: "-".join(f"{v}" for v in value.values()) if isinstance(value, dict) else None,
)
def test_codes_are_the_sources(
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    pictures: list[Path],
    tmp_path: Path,
    arch: str,
    bits: int,
    options: dict[str, Any],
    opset: int,
) -> None:
    """In ONNX Runtime with its optimiser off and on; every dense convolution a product of bytes."""
    detector = make_detector(arch, bits, **options)
    lowered = onnx_for_target(trace_once(detector), TARGET, "own", opset)
    check_model(lowered.model)
    check_portable_graph(lowered.model)
    path = tmp_path / "model.onnx"
    path.write_bytes(lowered.model.SerializeToString())
    for tier in compare(detector, path, pictures, CONTRACT, threads=1):
        assert tier.wrong_codes == 0, tier.to_dict()
        assert tier.passed, tier.to_dict()
    convolutions = [m for m in detector.modules() if isinstance(m, QuantConv2d)]
    dense = [conv for conv in convolutions if conv.groups == 1 and bits < 32]
    assert dict(lowered.applied)["matmul_conv"] == max(0, len(dense) - 1)  # the stem reads pixels


def test_the_bundle_of_target_cpu(
    tmp_path: Path,
    shallow: None,
    quick_trace: None,
    checkpoints: dict[str, Path],
    pictures: list[Path],
) -> None:
    """Exported, opened, run and verified again; its plan names products of bytes."""
    place = tmp_path / "bundle"
    result = export_bundle(checkpoints["frozen"], place, target="cpu", images=pictures)
    assert result.passed
    bundle = Bundle.open(place)
    model = onnx.load(bundle.model_path)
    assert codes_are_last(model)
    plan = bundle.manifest["plan"]
    assert plan == json.loads(json.dumps([layer.to_dict() for layer in planned_layers(model)]))
    products = [layer for layer in plan if layer["op"] == "MatMulInteger"]
    assert len(products) == result.nodes["MatMulInteger"]
    for layer in products:
        assert (layer["compute"], layer["weight_storage"]) == ("int8", "packed")
        assert layer["weights"] == layer["in_shape"][-1] * layer["out_shape"][-1]
        assert layer["weights"] <= 4 * layer["weight_bytes"] < 2 * layer["weights"]
    assert open_session(bundle, threads=1).outputs == ("logit",)
    checked = verify_bundle(place, checkpoint=checkpoints["frozen"], images=pictures[:1])
    assert checked.passed
    assert checked.parity[0].codes_compared > 0
    with pytest.raises(ExportError, match="lowered for CPUs, whose kernels are no GPU's"):
        estimate_bundle(place, target="orin-nano")
