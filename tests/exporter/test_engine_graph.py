"""The static check: each planted fault that TensorRT swallows is named, with the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.engine_graph import check_engine_graph, engine_faults
from qmdd.exporter.errors import ExportError


class _Planted:
    """A quantised convolution, right in every way until one thing is changed."""

    def __init__(self) -> None:
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            "one": np.array(1, dtype=np.float32),
            "zero": np.array(0, dtype=np.int8),
            "weight": np.ones((4, 4, 1, 1), dtype=np.int8),
        }
        self.nodes = {
            "q": ["QuantizeLinear", ["x", "one", "zero"], {}],
            "dq": ["DequantizeLinear", ["q.out", "one", "zero"], {}],
            "wdq": ["DequantizeLinear", ["weight", "one", "zero"], {}],
            "conv": ["Conv", ["dq.out", "wdq.out"], {}],
        }

    def between(self, name: str, op: str, before: str, **attrs: Any) -> None:
        """Put a node between ``before`` and the convolution."""
        self.nodes = {
            **{key: node for key, node in self.nodes.items() if key != "conv"},
            name: [op, [f"{before}.out"], attrs],
            "conv": self.nodes["conv"],
        }
        inputs = self.nodes["conv"][1]
        inputs[inputs.index(f"{before}.out")] = f"{name}.out"

    def model(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node(op, inputs, [f"{name}.out"], name=name, **attrs)
            for name, (op, inputs, attrs) in self.nodes.items()
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
        y = helper.make_tensor_value_info("conv.out", TensorProto.FLOAT, None)
        held = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(nodes, "planted", [x], [y], held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _plant(fault: str) -> _Planted:
    net = _Planted()
    vector = np.linspace(0.5, 1, 4).astype(np.float32)
    if fault == "weights on axis 1":
        net.constants["scales"] = vector
        net.constants["zeros"] = np.zeros(4, dtype=np.int8)
        net.nodes["wdq"] = ["DequantizeLinear", ["weight", "scales", "zeros"], {"axis": 1}]
    elif fault == "an operator before the weights":
        net.between("move", "Identity", "wdq")
    elif fault == "an operator before the activations":
        net.between("move", "Reshape", "dq")
        net.constants["shape"] = np.array([1, 4, 8, 8])
        net.nodes["move"][1].append("shape")
    elif fault == "uint8 activations":
        net.constants["zero8"] = np.array(0, dtype=np.uint8)
        for name in ("q", "dq"):
            net.nodes[name][1][2] = "zero8"
    elif fault == "activations by channel":
        net.constants["scales"] = vector
        net.constants["zeros"] = np.zeros(4, dtype=np.int8)
        for name in ("q", "dq"):
            net.nodes[name][1][1:] = ["scales", "zeros"]
            net.nodes[name][2] = {"axis": 1}
    elif fault == "differently scaled":
        net.constants["two"] = np.array(2, dtype=np.float32)
        net.nodes = {
            **{k: v for k, v in net.nodes.items() if k != "conv"},
            "q2": ["QuantizeLinear", ["x", "two", "zero"], {}],
            "dq2": ["DequantizeLinear", ["q2.out", "two", "zero"], {}],
            "join": ["Concat", ["dq.out", "dq2.out"], {"axis": 1}],
            "conv": ["Conv", ["join.out", "wdq.out"], {}],
        }
        net.constants["weight"] = np.ones((4, 8, 1, 1), dtype=np.int8)
    elif fault == "a zero point":
        net.constants["zero"] = np.array(3, dtype=np.int8)
    elif fault == "a scale of zero":
        net.constants["one"] = np.array(0, dtype=np.float32)
    elif fault == "a foreign operator":
        net.nodes["log"] = ["Log", ["x"], {}]
    elif fault == "int32 weights":
        net.constants["weight"] = np.ones((4, 4, 1, 1), dtype=np.int32)
        net.nodes["wdq"][1] = ["weight", "one"]
    return net


def test_the_graph_without_a_fault_passes() -> None:
    """Else the cases below would show nothing."""
    assert engine_faults(_plant("").model()) == []
    check_engine_graph(_plant("").model())


@pytest.mark.parametrize(
    ("fault", "node", "says"),
    [
        ("weights on axis 1", "wdq", "weights scaled along axis 1"),
        ("an operator before the weights", "conv", "Identity stands between DequantizeLinear and"),
        ("an operator before the activations", "conv", "Reshape stands between"),
        ("uint8 activations", "q", "UINT8 codes, which TensorRT takes for INT8"),
        ("activations by channel", "q", "activations scaled by channel"),
        ("differently scaled", "conv", "codes of different scales"),
        ("a zero point", "q", "its zero point is not 0"),
        ("a scale of zero", "q", "a scale is not positive"),
        ("a foreign operator", "log", "Log is no operator that an engine can hold"),
        ("int32 weights", "wdq", "INT32 codes"),
    ],
)
def test_each_fault_is_named_with_its_node(fault: str, node: str, says: str) -> None:
    """TensorRT would build most of these, in float, without a word."""
    found = engine_faults(_plant(fault).model())
    assert any(line.startswith(f"{node}: ") and says in line for line in found), found
    with pytest.raises(ExportError, match="not fit for TensorRT: "):
        check_engine_graph(_plant(fault).model())
