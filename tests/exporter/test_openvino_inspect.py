"""``qmdd inspect`` of a bundle for OpenVINO: what this machine's OpenVINO makes of the plan."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qmdd.exporter.engine.inspect import inspect_bundle
from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import source_from_network
from qmdd.models import Detector
from qmdd.runtime import openvino_audit

pytestmark = pytest.mark.usefixtures("quick_trace")


@pytest.fixture
def bundle(tmp_path: Path, small: Detector) -> Path:
    """The small detector lowered for OpenVINO."""
    source = source_from_network(small, "resnet23")
    return export_bundle(source, tmp_path / "bundle", target="openvino", verify=False).bundle


def test_every_layer_is_compiled_as_planned(bundle: Path) -> None:
    """INT8 for each convolution, with the name of the kernel."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    found = inspect_bundle(bundle)
    assert found.label == "compiled here by OpenVINO"
    assert found.audit.passed
    convolutions = [layer for layer in found.audit.layers if layer.op == "Conv"]
    assert len(convolutions) >= 8
    for layer in convolutions:
        assert layer.built == "int8"
        assert layer.engine_layers


def test_a_layer_that_runs_in_float_is_a_fault(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And named."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    monkeypatch.setitem(openvino_audit._PRECISIONS, "i8", "float32")
    monkeypatch.setitem(openvino_audit._PRECISIONS, "u8", "float32")
    found = inspect_bundle(bundle)
    assert not found.audit.passed
    assert all(fault.endswith("planned int8, runs float32") for fault in found.audit.faults)


def test_without_openvino_the_plan_is_shown(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for any bundle that nothing was built of."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = inspect_bundle(bundle)
    assert found.label == "planned, not built"
    assert {layer.built for layer in found.audit.layers} == {""}
