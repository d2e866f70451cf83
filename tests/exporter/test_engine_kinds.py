"""Every kind of quantizer and network as an engine: the source's codes, and INT8 as planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmdd.exporter.engine.build import build_engine
from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import source_from_network
from qmdd.models import Detector
from qmdd.runtime.errors import EngineError
from qmdd.runtime.tensorrt_api import load_tensorrt

pytestmark = pytest.mark.usefixtures("quick_trace")

MINMAX = {"activation": "minmax", "weight": "minmax"}
LSQ = {"activation": "lsq", "weight": "lsq", "slr": False}
BINARY = {"activation": "binary", "weight": "binary", "slr": False}
MIXED = {"layer_bits": (("stages.1.0.conv2", 4), ("stages.2.0.conv1", 8), ("stages.3.0.conv2", 3))}

CASES: list[tuple[str, int, dict[str, Any], str]] = [
    ("resnet23", 1, BINARY, "int8"),
    ("resnet23", 2, {"cqb": False}, "int2"),
    ("resnet23", 2, MIXED, "int2"),
    ("resnet23", 3, LSQ, "int4"),
    ("resnet23", 4, MINMAX, "int4"),
    ("resnet23", 8, MINMAX, "int8"),
    ("mobilenetv2", 8, MINMAX, "int8"),
    ("n2uq_resnet18", 2, {}, "int2"),
    ("n2uq_resnet50", 4, {}, "int8"),
    ("npr_resnet50", 2, {}, "int4"),
]


@pytest.fixture(scope="module")
def rtx() -> bool:
    """Whether engines can be built here; without it the models are compared all the same."""
    try:
        load_tensorrt("tensorrt_rtx")
    except EngineError:
        return False
    return True


@pytest.mark.parametrize(("arch", "bits", "options", "weights"), CASES)
def test_codes_are_equal_and_layers_as_planned(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    pictures: list[Path],
    rtx: bool,
    arch: str,
    bits: int,
    options: dict[str, Any],
    weights: str,
) -> None:
    """Codes read minus any zero, of any width, in any storage; both tiers, 0 wrong."""
    source = source_from_network(make_detector(arch, bits, **options), arch)
    folder = tmp_path / "bundle"
    result = export_bundle(source, folder, target="rtx", weights=weights, images=pictures)
    for tier in result.parity:
        assert tier.codes_compared > 0
        assert tier.wrong_codes == tier.flipped_verdicts == 0
        assert tier.max_abs_logit_diff <= tier.logit_bar
    if rtx:
        audit = build_engine(folder).audit
        assert audit.faults == []
        assert audit.unlisted == []
        assert audit.count("int8", built=True) == audit.count("int8", built=False) >= 8
