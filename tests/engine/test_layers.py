"""Layer tables: TensorRT-RTX's log, and the inspector's JSON of each generation.

The log lines are of a real build. The JSON is written after NVIDIA's documentation of the engine
inspector (TensorRT 8.5, 10, 11), because no engine of theirs can be built without a GPU.
"""

from __future__ import annotations

import json

import pytest

from qmdd.exporter.engine.layers import (
    BITS,
    EngineLayer,
    Tensor,
    layers_from_inspector,
    layers_from_log,
)
from qmdd.exporter.errors import BuildError

LOG = """Layers:
Name: __mye486_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], \
TacticName: , StreamId: 0, Metadata: {end}
Name: __mye2_myl0_1, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , \
StreamId: 6, EventId: 9, Metadata: {end}
Name: a/Conv_myl0_6, LayerType: correlation, Inputs: [ { Name: x.1, Dimensions: [1,32,-1,-1], \
Strides: [-1,1,-1,32], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major \
format }], Constants: [ { Name: w, Dimensions: [32,32,3,3], Strides: [288,1,96,32], \
StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }, { Name: s, \
Dimensions: [1,32,1,1], Strides: [32,1,32,32], StrideOrder: [3,0,2,1], Datatype: Float, Format: \
(NHWC) Channel major format }], Outputs: [ { Name: y, Dimensions: [1,32,-1,-1], Strides: \
[-1,1,-1,32], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], \
TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: a/Conv][ONNX Layer: a[0].d/DQ]
Name: __myl_Tran_myl0_8, LayerType: kgen, Inputs: [ { Name: y, Dimensions: [1,32,-1,-1], Strides: \
[-1,1,-1,32], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], \
Constants: [], Outputs: [ { Name: z, Dimensions: [], Strides: [], StrideOrder: [], Datatype: \
Half, Format: (Linear) Row major linear format }], TacticName: __myl_Tran_0xf2, \
StreamId: 0, Metadata: {end}
Name: __myl_CastMulCast_myl0_6, LayerType: kgen, Inputs: [], Constants: [ { Name: w4, Dimensions: \
[7], Strides: [1], StrideOrder: [0], Datatype: Int4, Format: (Linear) Row major linear format }], \
Outputs: [], TacticName: __myl_CastMulCast_0x1, StreamId: 0, Metadata: [ONNX Layer: w/DQ]
Name: g/Gemm_myl0_11, LayerType: gemm, Inputs: [], Constants: [], Outputs: [], TacticName: g, \
StreamId: 0, Metadata: [ONNX Layer: g/Gemm]

I/O Tensors:
 Name: image, IOMode: Input, DataType: UInt8
""".replace("{end}", "")


def test_log_of_tensorrt_rtx() -> None:
    layers = layers_from_log(LOG)
    kinds = [layer.kind for layer in layers]
    assert kinds == ["control", "control", "convolution", "move", "unpack", "product"]
    conv = layers[2]
    assert conv.onnx == ("a/Conv", "a[0].d/DQ")
    assert conv.inputs == (Tensor("x.1", (1, 32, -1, -1), "int8"),)
    assert [(t.dtype, t.elements, t.bytes) for t in conv.constants] == [
        ("int8", 9216, 9216),
        ("float32", 32, 128),
    ]
    assert conv.inputs[0].elements == conv.inputs[0].bytes == 0
    assert layers[3].outputs == (Tensor("z", (), "float16"),)
    assert layers[4].constants[0].bytes == 4  # seven nibbles
    assert [layer.inserted for layer in layers] == [False, False, False, True, False, False]


def test_log_that_is_not_understood_says_so() -> None:
    with pytest.raises(BuildError, match=r"not understood \('Layer 1: conv'\)"):
        layers_from_log("Layers:\nLayer 1: conv\n")


TENSOR_8 = "Thirty-two wide channel vectorized row major Int8 format."


def _inspector(key: str, told: dict[str, str], **layer: object) -> str:
    conv = {
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Dimensions": [1, 64, 28, 28], **told}],
        "Outputs": [{"Name": "y", "Dimensions": [1, 64, 28, 28], **told}],
        "ParameterType": "Convolution",
        "Weights": {"Type": "Int8", "Count": 36864},
        "Bias": {"Type": "Float", "Count": 64},
        **layer,
    }
    return json.dumps({"Layers": [conv], key: ["image", "logit"]})


@pytest.mark.parametrize(
    "text",
    [
        _inspector("Bindings", {"Format/Datatype": TENSOR_8}, Name="b/Relu + a/Conv + a/Add"),
        _inspector(
            "Bindings",
            {"Format/Datatype": TENSOR_8},
            Name="fused",
            Metadata="[ONNX Layer: b/Relu]\x1e[ONNX Layer: a/Conv]\x1f[ONNX Layer: a/Add]",
        ),
        _inspector(
            "I/O Tensors",
            {"Format": "Thirty-two wide channel vectorized row major", "Datatype": "Int8"},
            Name="fused",
            Metadata="[ONNX Layer: b/Relu][ONNX Layer: a/Conv][ONNX Layer: a/Add]",
        ),
    ],
    ids=["8.5", "10", "11"],
)
def test_inspector_of_each_generation(text: str) -> None:
    (layer,) = layers_from_inspector(text)
    assert layer.kind == "convolution"
    assert layer.onnx == ("b/Relu", "a/Conv", "a/Add")
    assert layer.inputs == (Tensor("x", (1, 64, 28, 28), "int8"),)
    assert layer.constants == (Tensor("weights", (36864,), "int8"),)


@pytest.mark.parametrize(
    "name", ["Reformatting CopyNode for Input Tensor 0 to a/Conv", "x_output copy"]
)
def test_reformats_of_the_inspector_are_inserted(name: str) -> None:
    text = json.dumps({"Layers": [{"Name": name, "LayerType": "Reformat"}]})
    (layer,) = layers_from_inspector(text)
    assert layer.kind == "move"
    assert layer.inserted


@pytest.mark.parametrize(
    ("told", "dtype"),
    [
        ("Row major linear FP32", "float32"),
        ("Channel major FP16 format where channel % 8 == 0", "float16"),
        ("Half", "float16"),
        ("BFloat16", "bfloat16"),
        ("Row major linear UInt8", "uint8"),
        ("Int64", "int64"),
        ("E4M3 FP8", "float8"),
        ("Int4", "int4"),
        ("Bool", "bool"),
        ("something new", ""),
    ],
)
def test_types_in_the_inspectors_words(told: str, dtype: str) -> None:
    tensor = {"Name": "x", "Dimensions": [3], "Format/Datatype": told}
    text = json.dumps({"Layers": [{"Name": "a", "LayerType": "x", "Inputs": [tensor]}]})
    (layer,) = layers_from_inspector(text)
    assert layer.inputs[0].dtype == dtype
    assert dtype in ("", *BITS)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", '{"Layers": ["a/Conv"]}', '{"Layers": [{"Name": 1}]}', "[" * 100_000),
        '{"Layers": [{"Name": "a", "LayerType": "x", "Inputs": [1.5]}]}',
    ],
)
def test_inspector_without_details_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="inspector gave no layer table"):
        layers_from_inspector(text)


@pytest.mark.parametrize("dims", ["1-2", "-", "9" * 5000])
def test_a_log_with_a_size_that_is_no_number_is_refused(dims: str) -> None:
    with pytest.raises(BuildError, match="is not understood"):
        layers_from_log(LOG.replace("[1,32,-1,-1]", f"[{dims}]"))


def test_layers_survive_json() -> None:
    layers = layers_from_log(LOG)
    plain = json.loads(json.dumps([layer.to_dict() for layer in layers]))
    assert [EngineLayer.from_dict(layer) for layer in plain] == layers


ENDLESS = {"inputs": [{"name": "x", "dims": [float("inf")], "dtype": "int8"}]}


@pytest.mark.parametrize(
    "change", [{"inputs": 3}, {"onnx": None}, {"outputs": [{"name": "x"}]}, ENDLESS]
)
def test_spoilt_table_is_refused(change: dict[str, object]) -> None:
    plain = layers_from_log(LOG)[2].to_dict()
    with pytest.raises(BuildError, match="layer table: "):
        EngineLayer.from_dict({**plain, **change})
