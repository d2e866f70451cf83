"""The lowering for OpenVINO: codes of the source at every quantizer, convolutions in INT8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from qmdd.exporter.export import CONTRACT
from qmdd.exporter.lower import Lowered, check_model, onnx_for_target
from qmdd.exporter.parity import compare
from qmdd.exporter.plan import planned_layers
from qmdd.exporter.targets import find_target
from qmdd.models import Detector
from qmdd.models.conv import QuantConv2d
from qmdd.runtime.parity import TierResult

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

TARGET = find_target("openvino")
SIDES = {**CONTRACT, "min_side": TARGET.min_side}
TraceOnce = Callable[[Detector], onnx.ModelProto]


@pytest.fixture(scope="module")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG files of noise on coarse blocks, 70x94, 64x64 and 66x98."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(7)
    files = []
    for height, width in ((70, 94), (64, 64), (66, 98)):
        coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
        smooth = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
        noisy = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{height}x{width}.png")
        Image.fromarray(noisy).save(files[-1])
    return files


@pytest.fixture
def lowered(trace_once: TraceOnce) -> Callable[..., Lowered]:
    """The lowered model of a detector, by opset and storage."""

    def lower(detector: Detector, opset: int = 21, storage: str = "own") -> Lowered:
        result = onnx_for_target(trace_once(detector), TARGET, storage, opset)
        check_model(result.model)
        return result

    return lower


def _parity(
    detector: Detector, model: onnx.ModelProto, folder: Path, images: list[Path], runtime: str
) -> list[TierResult]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    plan = [layer.to_dict() for layer in planned_layers(model)]
    return compare(detector, path, images, SIDES, threads=1, runtime=runtime, plan=plan)


@pytest.mark.parametrize(
    ("arch", "bits", "options"),
    [
        ("resnet23", 1, {}),
        ("resnet23", 2, {}),
        ("resnet23", 3, {}),
        ("resnet23", 4, {}),
        ("resnet23", 8, {}),
        ("resnet23", 2, {"representation": "rgb"}),
        ("resnet23", 2, {"cqb": False}),
        ("resnet23", 4, {"activation": "minmax", "weight": "minmax"}),
        ("resnet23", 8, {"activation": "minmax", "weight": "minmax"}),
        ("resnet23", 3, {"activation": "lsq", "weight": "lsq", "slr": False}),
        ("resnet50", 2, {}),
        ("mobilenetv2", 1, {}),
        ("mobilenetv2", 4, {}),
        ("mobilenetv2", 8, {}),
    ],
    ids=lambda value: "-".join(f"{v}" for v in value.values()) if isinstance(value, dict) else None,
)
def test_codes_are_the_sources(
    make_detector: Callable[..., Detector],
    lowered: Callable[..., Lowered],
    large_pictures: list[Path],
    tmp_path: Path,
    arch: str,
    bits: int,
    options: dict[str, Any],
) -> None:
    """In OpenVINO as deployed, in ONNX Runtime with its optimiser on and off; all as planned."""
    detector = make_detector(arch, bits, **options)
    model = lowered(detector).model
    for runtime in ("openvino", "onnxruntime"):
        for tier in _parity(detector, model, tmp_path, large_pictures, runtime):
            assert tier.codes_compared > 0
            assert tier.wrong_codes == 0, (runtime, tier.to_dict())
            assert tier.passed, (runtime, tier.to_dict())
    quantised = [m for m in detector.modules() if isinstance(m, QuantConv2d)]
    planned = [layer for layer in planned_layers(model) if layer.compute == "int8"]
    stems = 0 if options.get("representation") == "rgb" else 1
    assert len(planned) >= len(quantised) - 1 + stems
