"""The look at the written graph: every promise that is broken on purpose is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.errors import ExportError
from qmdd.exporter.lower import check_quantised, onnx_for_target
from qmdd.exporter.targets import find_target
from qmdd.models import Detector

LAYER = "stages.1.0.conv1"


@pytest.fixture
def model(small: Detector, trace_once: Callable[[Detector], onnx.ModelProto]) -> onnx.ModelProto:
    """A sound model of the ``onnx`` target."""
    lowered = onnx_for_target(trace_once(small), find_target("onnx"), "own", 21)
    check_quantised(lowered.model)
    return lowered.model


def _node(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    (found,) = [node for node in model.graph.node if node.output[0] == output]
    return found


def test_weights_as_a_plain_initializer(model: onnx.ModelProto) -> None:
    """What ONNX Runtime's optimiser would fold a scale into (EXACT: 454 wrong codes)."""
    convolution = _node(model, f"{LAYER}.conv.acc")
    floats = numpy_helper.from_array(np.ones((16, 8, 3, 3), dtype=np.float32), "floats")
    model.graph.initializer.append(floats)
    convolution.input[1] = "floats"
    with pytest.raises(ExportError, match=rf"^{LAYER}\.conv\.acc/Conv: its weights do not come"):
        check_quantised(model)


def test_weights_that_are_computed_otherwise(model: onnx.ModelProto) -> None:
    """A Cast in place of DequantizeLinear is folded into a float initializer when loading."""
    restore = _node(model, f"{LAYER}.conv.weight.values")
    del restore.input[1:]
    restore.op_type = "Cast"
    restore.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    with pytest.raises(ExportError, match="its weights do not come through DequantizeLinear"):
        check_quantised(model)


def test_stem_weights_as_a_plain_initializer(model: onnx.ModelProto) -> None:
    """The stem is let off the activations' rule, not the weights'."""
    floats = numpy_helper.from_array(np.ones((8, 3, 8, 8), dtype=np.float32), "floats")
    model.graph.initializer.append(floats)
    (stem,) = [n for n in model.graph.node if n.op_type == "Conv" and n.input[0] == "_to_copy"]
    stem.input[1] = "floats"
    with pytest.raises(ExportError, match="its weights do not come through DequantizeLinear"):
        check_quantised(model)


def test_activations_without_dequantize_linear(model: onnx.ModelProto) -> None:
    convolution = _node(model, f"{LAYER}.conv.acc")
    convolution.input[0] = f"{LAYER}.t2.sum"
    with pytest.raises(ExportError, match="activations do not come through DequantizeLinear"):
        check_quantised(model)


def test_activations_without_quantize_linear(model: onnx.ModelProto) -> None:
    restore = _node(model, f"{LAYER}.values")
    restore.input[0] = f"{LAYER}.t2.sum"
    with pytest.raises(ExportError, match="activations do not come through QuantizeLinear"):
        check_quantised(model)


def test_activations_from_a_graph_input(model: onnx.ModelProto) -> None:
    """Only the cast image may enter a convolution unquantised."""
    _node(model, f"{LAYER}.conv.acc").input[0] = "image"
    with pytest.raises(ExportError, match="activations do not come through DequantizeLinear"):
        check_quantised(model)


def test_a_cast_of_something_else_is_no_stem(model: onnx.ModelProto) -> None:
    _node(model, f"{LAYER}.conv.acc").input[0] = f"{LAYER}.t0.one"
    with pytest.raises(ExportError, match="activations do not come through DequantizeLinear"):
        check_quantised(model)


def test_npr_before_the_stem(
    small: Detector, trace_once: Callable[[Detector], onnx.ModelProto]
) -> None:
    """Left as traced, the stem reads a residual, not pixels."""
    with pytest.raises(ExportError, match="activations do not come through DequantizeLinear"):
        check_quantised(trace_once(small))


def test_a_logarithm(model: onnx.ModelProto) -> None:
    """After freezing none is left (DESIGN 2)."""
    logarithm = helper.make_node("Log", ["image"], ["nothing"], name="left/Log")
    model.graph.node.append(logarithm)
    with pytest.raises(ExportError, match=r"^left/Log: a logarithm is left in the graph"):
        check_quantised(model)
