"""The budget of an engine's codes: between what rounding once flips and what FP16 does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from qmdd.exporter.code_budget import PART, code_budget, halved
from qmdd.exporter.lower import onnx_for_target
from qmdd.exporter.parity import source_outputs
from qmdd.exporter.probes import with_probes
from qmdd.exporter.targets import find_target
from qmdd.models import Detector
from qmdd.runtime.golden import Golden
from qmdd.runtime.golden_tiers import LEAST_BUDGET
from qmdd.runtime.session import OnnxSession


def test_a_third_of_what_sums_in_fp16_flip(
    tmp_path: Path,
    small: Detector,
    trace_once: Callable[[Detector], onnx.ModelProto],
) -> None:
    lowered = onnx_for_target(trace_once(small), find_target("orin-nano"), "int8", 17)
    path = tmp_path / "model.onnx"
    onnx.save(lowered.model, path)
    probed = with_probes(path)
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    logits, codes = source_outputs(small, image[None])
    golden = Golden([image], logits, [{name: found.reshape(-1) for name, found in codes.items()}])
    found = OnnxSession(halved(probed.model), optimize=False).run(image[None])
    wrong = sum(int((found[f"{name}.codes"] != codes[name]).sum()) for name in codes)
    total = sum(array.size for array in codes.values())
    assert 0 < wrong < total / 4
    assert code_budget(probed.model, golden) == max(LEAST_BUDGET, wrong / total / PART)


def test_only_sums_of_products_are_halved(
    small: Detector, trace_once: Callable[[Detector], onnx.ModelProto]
) -> None:
    """As many as convolutions and shortcuts have; the graph is a sound one."""
    model = onnx_for_target(trace_once(small), find_target("orin-nano"), "int8", 17).model
    changed = onnx.load_from_string(halved(model.SerializeToString()))
    onnx.checker.check_model(changed, full_check=True)
    products = {node.output[0] for node in model.graph.node if node.op_type == "Mul"}
    sums = [n for n in model.graph.node if n.op_type == "Add" and products & set(n.input)]
    assert len(changed.graph.node) - len(model.graph.node) == 2 * len(sums) > 8
