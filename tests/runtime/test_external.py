"""A model that keeps weights in another file: no hash vouches for it, so it is not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime.errors import SessionError
from qmdd.runtime.external import keeps_data_elsewhere
from qmdd.runtime.session import OnnxSession


def _model(name: str = "w") -> onnx.ModelProto:
    """Casts an image, multiplies by one number, and means: it has one weight."""
    weight = numpy_helper.from_array(np.full(64, 2, np.float32), name)
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("ReduceMean", [name], ["k"], keepdims=0),
        helper.make_node("Mul", ["m", "k"], ["s"]),
        helper.make_node("Reshape", ["s", "one"], ["logit"]),
    ]
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])
    logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [image], [logit], [weight, one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _outside(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    return model


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "location"])
def test_it_is_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / "model.onnx"
    (tmp_path / "weights.bin").write_bytes(np.full(64, 2, np.float32).tobytes())
    data = _outside(_model(), place).SerializeToString()
    path.write_bytes(data)
    assert keeps_data_elsewhere(path)
    for model in (path, data):
        with pytest.raises(SessionError, match="keeps weights in another file"):
            OnnxSession(model, threads=1)


@pytest.mark.parametrize(
    "spelt", [b"\x8a\x00\x08", b"\x0a\x88\x80\x80\x00", b"\x8a\x80\x00\x88\x00"]
)
def test_numbers_that_are_spelt_at_length_do_not_hide_it(spelt: bytes) -> None:
    """What the protocol's readers take for the same: more bytes than a number needs."""
    entry = spelt + b"location" + b"\x12\x01w"
    tensor = b"\x6a" + bytes([len(entry)]) + entry + b"\x70\x01"  # external_data, data_location
    parsed = onnx.TensorProto.FromString(tensor)
    assert parsed.external_data[0].key == "location"
    assert keeps_data_elsewhere(tensor)


def test_the_word_alone_is_nothing(tmp_path: Path) -> None:
    model = _model("location.weight")
    model.doc_string = "location"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert not keeps_data_elsewhere(path)
    image = np.full((1, 3, 4, 4), 3, np.uint8)
    assert OnnxSession(path, threads=1).logits(image) == [6.0]
    (tmp_path / "empty").touch()
    assert not keeps_data_elsewhere(tmp_path / "empty")
    assert not keeps_data_elsewhere(b"")
