"""Whole networks lowered for engines: the source's codes and verdicts, and an honest plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from qmdd.exporter.engine_graph import engine_faults
from qmdd.exporter.export import export_bundle
from qmdd.exporter.lower import onnx_for_target
from qmdd.exporter.plan import PlannedLayer, planned_layers
from qmdd.exporter.source import Source
from qmdd.exporter.targets import find_target
from qmdd.models import Detector
from qmdd.models.checkpoint import freeze
from qmdd.models.stats import layer_stats
from qmdd.runtime.bundle import Bundle

pytestmark = pytest.mark.usefixtures("quick_trace")

CASES = [
    *((arch, bits, "rtx", None, None) for arch in ("resnet23", "resnet50", "mobilenetv2")
      for bits in (1, 2, 3, 4, 8)),
    *((arch, bits, "rtx", storage, None) for arch in ("resnet23", "mobilenetv2")
      for bits, storage in ((2, "int2"), (2, "int4"), (4, "int4"))),
    ("resnet50", 2, "orin-nano", None, "int4"),
    ("resnet23", 3, "orin-nano@5.1", "int2", None),
]  # fmt: skip


def _source(detector: Detector) -> Source:
    return Source(detector, detector.config.arch, detector.config.bits, {"config": {}})


@pytest.mark.parametrize(("arch", "bits", "target", "weights", "precision"), CASES)
def test_an_engines_model_gives_the_sources_codes(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    pictures: list[Path],
    arch: str,
    bits: int,
    target: str,
    weights: str | None,
    precision: str | None,
) -> None:
    """Both tiers, 0 wrong codes; the plan counts what the model's own counters count."""
    detector = make_detector(arch, bits)
    result = export_bundle(
        _source(detector),
        tmp_path / "bundle",
        target=target,
        images=pictures,
        weights=weights,
        precision=precision,
    )
    assert result.passed, [(t.tier, [x for x in t.layers if x.wrong]) for t in result.parity]
    assert all(tier.codes_compared > 0 and tier.wrong_codes == 0 for tier in result.parity)
    opened = Bundle.open(result.bundle)
    plan = [PlannedLayer.from_dict(layer) for layer in opened.manifest["plan"]]
    model = onnx.load(opened.model_path)
    assert plan == planned_layers(model)
    assert engine_faults(model) == []
    _check_plan(plan, detector, precision)


def _check_plan(plan: list[PlannedLayer], detector: Detector, precision: str | None) -> None:
    """Dense convolutions on codes and the stem are INT8, depthwise and the head are float."""
    counted = {
        (layer.weights, layer.multiply_adds)
        for layer in layer_stats(freeze(detector), 256)
        if layer.kind != "linear"
    }
    for layer in plan:
        if layer.op == "Gemm" or layer.depthwise:
            assert layer.compute == "float32", layer
        elif layer.op == "MatMul":
            assert (layer.compute, precision) == ("float16", "int4")
        else:
            assert layer.compute == "int8", layer
        whole = layer.op != "Gemm" and "stem" not in layer.name
        if whole:
            assert (layer.weights, layer.multiply_adds) in counted, layer


def test_classic_tensorrt_gets_int4_products_where_they_are_exact(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    trace_once: Callable[..., onnx.ModelProto],
) -> None:
    """1x1 layers of 64 channels at 2 bits; the others stay INT8, each with its reason."""
    detector = make_detector("resnet23", 2, width=1.0)
    lowered = onnx_for_target(trace_once(detector), find_target("orin-nano"), "int8", 21, "int4")
    plan = planned_layers(lowered.model)
    products = [layer for layer in plan if layer.op == "MatMul"]
    assert [layer.weight_storage for layer in products] == ["int4"] * len(products)
    assert {layer.in_shape[-1] for layer in products} >= {64, 128}
    assert any("not a 1x1 convolution" in note for note in lowered.notes)


@pytest.mark.parametrize("representation", ["rgb"])
def test_other_stems_stay_in_float(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    pictures: list[Path],
    representation: str,
) -> None:
    """RGB pixels minus their mean do not fit INT8; sums are exact all the same."""
    detector = make_detector("resnet23", 2, representation=representation)
    result = export_bundle(_source(detector), tmp_path / "bundle", target="rtx", images=pictures)
    assert result.passed
    plan = Bundle.open(result.bundle).manifest["plan"]
    assert plan[0]["compute"] == "float32"
    assert {layer["compute"] for layer in plan[1:-1]} == {"int8"}
    assert any("the first layer runs in float" in note for note in result.explain)


def test_the_bundle_says_how_its_engine_is_built(
    tmp_path: Path, make_detector: Callable[..., Detector], pictures: list[Path]
) -> None:
    """With qmdd and with trtexec, listed like every other file; the JetPack is in the name."""
    bundle = export_bundle(
        _source(make_detector("resnet23", 2)),
        tmp_path / "bundle",
        target="orin-nano",
        images=pictures,
        verify=False,
    ).bundle
    opened = Bundle.open(bundle)
    assert opened.target == "orin-nano@6.2"
    assert "BUILD.md" in opened.manifest["files"]
    text = (bundle / "BUILD.md").read_text(encoding="utf-8")
    assert "qmdd build" in text
    assert "--onnx=model.onnx" in text
    assert "--stronglyTyped" in text


def test_full_precision_is_lowered_too(
    tmp_path: Path, make_detector: Callable[..., Detector], pictures: list[Path]
) -> None:
    """The twin, for comparison on the device: all float, opset 17, NPR explicit."""
    detector = make_detector("resnet23", 32)
    result = export_bundle(
        _source(detector), tmp_path / "bundle", target="orin-nano", images=pictures
    )
    assert result.passed
    plan = Bundle.open(result.bundle).manifest["plan"]
    assert {layer["compute"] for layer in plan} == {"float32"}


def test_the_same_source_gives_the_same_bytes(
    tmp_path: Path, make_detector: Callable[..., Detector], pictures: list[Path]
) -> None:
    """Twice, the narrowest storage."""
    detector = make_detector("resnet23", 2)
    models = []
    for name in ("one", "two"):
        bundle = export_bundle(
            _source(detector),
            tmp_path / name,
            target="rtx",
            weights="int2",
            images=pictures,
            verify=False,
        ).bundle
        models.append((bundle / "model.onnx").read_bytes())
    assert models[0] == models[1]
