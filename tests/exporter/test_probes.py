"""Probes: code tensors as further outputs, found by what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.errors import ParityError
from qmdd.exporter.lower import onnx_for_target
from qmdd.exporter.parity import source_outputs
from qmdd.exporter.probes import code_tensors, with_probes
from qmdd.exporter.targets import find_target
from qmdd.models import Detector, quantised_chains
from qmdd.runtime.probes import layer_of


@pytest.mark.parametrize(
    ("target", "bits", "kind"),
    [
        ("onnx", 2, TensorProto.INT8),
        ("onnx", 8, TensorProto.UINT8),
        ("canonical", 2, TensorProto.FLOAT),
    ],
)
def test_every_quantizer_has_one_in_order(
    make_detector: Callable[..., Detector],
    trace_once: Callable[[Detector], onnx.ModelProto],
    target: str,
    bits: int,
    kind: int,
) -> None:
    """Named by layer, in the order of execution, of the type that the graph gives them."""
    detector = make_detector(bits=bits)
    lowered = onnx_for_target(trace_once(detector), find_target(target), "own", 21)
    found = code_tensors(lowered.model)
    assert [layer_of(name) for name in found] == [n for n, _ in quantised_chains(detector)]
    assert set(found.values()) == {kind}


@pytest.mark.parametrize("target", ["onnx", "canonical"])
def test_probes_show_the_sources_codes_and_change_no_logit(
    tmp_path: Path,
    small: Detector,
    trace_once: Callable[[Detector], onnx.ModelProto],
    run_model: Callable[..., Any],
    target: str,
) -> None:
    """The probed model is the shipped one plus outputs: the same logit, to the bit, deployed."""
    lowered = onnx_for_target(trace_once(small), find_target(target), "own", 21)
    path = tmp_path / "model.onnx"
    path.write_bytes(lowered.model.SerializeToString())
    data, names, _ = with_probes(path)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 66), dtype=np.uint8)
    _, codes = source_outputs(small, images)
    plain = run_model(lowered.model, True, image=images)
    logit, *probed = run_model(onnx.load_from_string(data), True, image=images)
    np.testing.assert_array_equal(plain[0], logit)
    assert len(plain) == 1
    for name, have in zip(names, probed, strict=True):
        np.testing.assert_array_equal(have.astype(np.int64), codes[layer_of(name)])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model" * 10)
    with pytest.raises(ParityError, match=r"model\.onnx: not a readable ONNX model"):
        with_probes(path)
    with pytest.raises(ParityError, match=r"absent\.onnx: not a readable ONNX model"):
        with_probes(tmp_path / "absent.onnx")


def test_another_tools_model_has_no_code_tensors(tmp_path: Path) -> None:
    """QuantizeLinear alone does not make a tensor ours; its name does."""
    zero = numpy_helper.from_array(np.array(0, dtype=np.uint8), "zero")
    scale = numpy_helper.from_array(np.array(1, dtype=np.float32), "scale")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["quantised"])],
        "other",
        [value("x", TensorProto.FLOAT, [1])],
        [value("quantised", TensorProto.UINT8, [1])],
        [zero, scale],
    )
    path = tmp_path / "other.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ParityError, match=r"no code tensors in it; qmdd did not export"):
        with_probes(path)
