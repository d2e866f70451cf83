"""The published networks' architectures: exported exactly, whatever training may leave in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from qmdd.exporter.export import CONTRACT
from qmdd.exporter.lower import node_counts, onnx_for_target
from qmdd.exporter.parity import compare
from qmdd.exporter.targets import find_target
from qmdd.models import Detector, n2uq_resnet, npr_resnet, quantised_chains

Make = Callable[..., Detector]
TraceOnce = Callable[[Detector], onnx.ModelProto]

#: As the import makes them.
PLAIN: dict[str, Any] = {"cqb": False, "slr": False}


@pytest.fixture(autouse=True)
def one_block_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the second stage's two, the second of them without downsampling."""
    layouts = {name: (block, (1, 2, 1, 1)) for name, (block, _) in n2uq_resnet.LAYOUTS.items()}
    monkeypatch.setattr(n2uq_resnet, "LAYOUTS", layouts)
    monkeypatch.setattr(npr_resnet, "DEPTHS", (1, 2))


def _compared(
    detector: Detector, trace_once: TraceOnce, images: list[Path], path: Path
) -> tuple[Any, dict[str, int]]:
    """Lowered, checked for no wrong code in either tier; the lowered model and its operators."""
    lowered = onnx_for_target(trace_once(detector), find_target("onnx"), "own", 21)
    path.write_bytes(lowered.model.SerializeToString())
    for tier in compare(detector, path, images, CONTRACT):
        assert tier.wrong_codes == 0
        assert tier.passed
        assert {layer.layer for layer in tier.layers} == {n for n, _ in quantised_chains(detector)}
    return lowered, node_counts(lowered.model)


@pytest.mark.parametrize(
    ("arch", "bits", "options"),
    [
        ("n2uq_resnet50", 3, {**PLAIN, "representation": "rgb"}),
        ("n2uq_resnet18", 2, {}),
        ("npr_resnet50", 2, PLAIN),
        ("npr_resnet50", 8, {**PLAIN, "activation": "minmax", "weight": "minmax"}),
    ],
)
def test_no_code_is_wrong(
    make_detector: Make,
    trace_once: TraceOnce,
    pictures: list[Path],
    tmp_path: Path,
    arch: str,
    bits: int,
    options: dict[str, Any],
) -> None:
    """Chains that end in the block's closing shifts, or in its ReLU, fold with the rest."""
    detector = make_detector(arch, bits, deep=True, **options)
    lowered, counts = _compared(detector, trace_once, pictures, tmp_path / "model.onnx")
    layers = len(quantised_chains(detector))
    assert counts["QuantizeLinear"] == layers
    assert not {"Log", "MultiThreshold"} & counts.keys()
    assert [n for name, n in lowered.applied if name == "lower_thresholds"] == [layers]
    # Positive slopes and batch-norms: every chain before a quantizer is in its table.
    assert lowered.notes == []


def test_a_falling_quantizer_is_exported_exactly(
    make_detector: Make, trace_once: TraceOnce, pictures: list[Path], tmp_path: Path
) -> None:
    """Negative ``scale1`` before a padded convolution, a strided one and a downsampling one;
    negative slopes, and an output channel of zeros beside them.
    """
    detector = make_detector("n2uq_resnet18", 2, deep=True, **PLAIN, representation="rgb")
    chains = dict(quantised_chains(detector))
    with torch.no_grad():
        for name in ("stages.0.0.conv2", "stages.1.0.conv1", "stages.2.0.downsample"):
            chains[name].quantizer.scale1.neg_()  # type: ignore[union-attr,operator]
        chains["stages.1.1.conv1"].prelu.weight[2] = -0.4
        detector.get_submodule("stages.0.0.closing").prelu.weight[1] = -0.3  # type: ignore[union-attr,index,operator]
        detector.get_submodule("stages.1.1.conv2.conv").weight[3] = 0.0  # type: ignore[operator]
    lowered, counts = _compared(detector, trace_once, pictures, tmp_path / "model.onnx")
    assert counts["QuantizeLinear"] == len(chains)
    zeros = [t for t in lowered.model.graph.initializer if t.name.endswith(".zero")]
    points = {t.name.removesuffix(".zero"): onnx.numpy_helper.to_array(t).item() for t in zeros}
    falling = {"stages.0.0.conv2", "stages.1.0.conv1", "stages.2.0.downsample"}
    assert {name for name, point in points.items() if point == 3} == falling
    assert any("PReLU slopes are negative" in note for note in lowered.notes)
