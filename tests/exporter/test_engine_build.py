"""From a detector to an audited engine: shallow networks, real builds for three RTX generations."""

from __future__ import annotations

import pytest

from qmdd.exporter.engine.build import build_engine
from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import Source
from qmdd.runtime.errors import EngineError
from qmdd.runtime.tensorrt_api import load_tensorrt


@pytest.fixture(scope="module", autouse=True)
def rtx() -> None:
    try:
        load_tensorrt("tensorrt_rtx")
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def build(make_detector, quick_trace, tmp_path, pictures):
    """Export a detector for ``rtx`` and build its engine."""

    def run(arch: str, bits: int, weights: str):
        source = Source(make_detector(arch, bits), arch, bits, {"sha256": "0" * 64})
        folder = tmp_path / "bundle"
        export_bundle(source, folder, target="rtx", weights=weights, verify=False, images=pictures)
        return build_engine(folder)

    return run


@pytest.mark.parametrize(
    ("arch", "bits"),
    [
        *(("resnet23", bits) for bits in (1, 2, 3, 4)),
        ("resnet50", 2),
        ("mobilenetv2", 1),
        ("mobilenetv2", 4),
    ],
)
def test_everything_planned_as_int8_runs_as_int8(build, arch: str, bits: int) -> None:
    audit = build(arch, bits, "int8").audit
    assert audit.faults == []
    assert audit.warnings == ()
    planned = audit.count("int8", built=False)
    assert planned == audit.count("int8", built=True) >= 8
    # Depthwise weights are held as INT8, too, and computed with in floating point.
    kept = [layer for layer in audit.layers if layer.built == "float32" != layer.built_storage]
    assert len(audit.unpacking) == len(kept)
    assert bool(kept) is (arch == "mobilenetv2")


@pytest.mark.parametrize("weights", ["int4", "int2"])
def test_weights_stay_narrow_in_the_engine(build, weights: str) -> None:
    result = build("resnet23", 2, weights)
    audit = result.audit
    assert audit.faults == []
    assert audit.warnings == ()
    narrow = [layer for layer in audit.layers if layer.planned_storage == weights]
    assert len(narrow) >= 8
    assert {layer.built_storage for layer in narrow} == {weights}
    assert audit.unpacking
