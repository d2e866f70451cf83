"""Models are looked at before a runtime reads them: what is refused, and that ours are not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime import onnx_limits
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.errors import BundleError, SessionError
from qmdd.runtime.onnx_limits import check_model
from qmdd.runtime.sessions import open_session

ModelFactory = Callable[..., bytes]
BundleFactory = Callable[..., Path]


def _model(nodes: list[Any], weights: list[Any] | None = None, functions: Any = ()) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        weights or [],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions))


def _functions(depth: int, fan: int) -> list[Any]:
    """Each calls the one before ``fan`` times; unfolded, ``fan ** depth`` operators."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    made = []
    for level in range(depth + 1):
        names = [f"t{i}" for i in range(fan)]
        nodes = [
            helper.make_node(
                f"F{level - 1}" if level else "Neg", [a], [b], domain="f" * (level > 0)
            )
            for a, b in zip(["x", *names], [*names[:-1], "y"], strict=False)
        ]
        made.append(helper.make_function("f", f"F{level}", ["x"], ["y"], nodes, imports))
    return made


def _external() -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def _attribute(**value: Any) -> Any:
    node = helper.make_node("If", ["image"], ["logit"])
    node.attribute.append(onnx.AttributeProto(name="a", **value))
    return node


def _sparse() -> Any:
    model = _model([])
    model.graph.sparse_initializer.add().values.name = "s"
    return model


def _training() -> Any:
    model = _model([])
    model.training_info.add().initialization.name = "t"
    return model


REFUSED = {
    "functions that call functions": lambda: (
        _model(
            [helper.make_node("F6", ["image"], ["logit"], domain="f")], functions=_functions(6, 9)
        ),
        "operators, more than",
    ),
    "a function that calls itself": lambda: (
        _model(
            [helper.make_node("F", ["image"], ["logit"], domain="f")],
            functions=[
                helper.make_function(
                    "f", "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="f")], []
                )
            ],
        ),
        "calls itself",
    ),
    "functions a thousand deep": lambda: (
        _model(
            [helper.make_node("F1000", ["image"], ["logit"], domain="f")],
            functions=_functions(1000, 1),
        ),
        "too deep",
    ),
    "many operators": lambda: (
        _model([helper.make_node("Neg", ["a"], ["b"])] * (onnx_limits.MAX_OPERATORS + 1)),
        "operators, more than",
    ),
    "weights in another file": lambda: (_model([], [_external()]), "another file"),
    "a constant in another file": lambda: (
        _model([_attribute(type="TENSOR", t=_external())]),
        "another file",
    ),
    "constants in other files": lambda: (
        _model([_attribute(type="TENSORS", tensors=[_external()])]),
        "another file",
    ),
    "a graph inside": lambda: (
        _model([_attribute(type="GRAPH", g=onnx.GraphProto(name="inner"))]),
        "graph inside",
    ),
    "sparse weights": lambda: (_sparse(), "sparse"),
    "a training graph": lambda: (_training(), "training"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_none_of_our_models_holds_is_refused(what: str) -> None:
    model, message = REFUSED[what]()
    with pytest.raises(BundleError, match=message):
        check_model(model.SerializeToString(), "m.onnx")


@pytest.mark.parametrize(
    "tag", [b"\x6a", b"\xea\x00", b"\xea\x80\x80\x80\x00", b"\xea\x80\x80\x80\x10"]
)
def test_numbers_that_are_spelt_at_length_hide_nothing(tag: bytes) -> None:
    """Protobuf's readers take them for the same; of five bytes they drop the upper bits."""
    entry = b"\x0a\x08location\x12\x01w"
    tensor = tag + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    with pytest.raises(BundleError, match=r"another file|no ONNX model"):
        check_model(b"\x3a" + bytes([len(graph)]) + graph)


def test_a_graph_in_parts_counts_as_one(make_model: ModelFactory) -> None:
    """Protobuf merges messages written one behind the other: half here, half in the probes."""
    half = _model([helper.make_node("Neg", ["a"], ["b"])] * (onnx_limits.MAX_OPERATORS // 2 + 9))
    data = half.SerializeToString()
    check_model(data)
    with pytest.raises(BundleError, match="operators"):
        check_model(data + data)
    merged = onnx.load_from_string(data + data)
    assert len(merged.graph.node) > onnx_limits.MAX_OPERATORS


def test_many_fields_are_refused_before_they_are_all_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_limits, "MAX_FIELDS", 1000)
    with pytest.raises(BundleError, match="fields"):
        check_model(
            _model([], [numpy_helper.from_array(np.zeros(1, "f4"))] * 500).SerializeToString()
        )


def test_a_large_model_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as stream:
        stream.truncate(onnx_limits.MAX_MODEL_BYTES + 1)
    with pytest.raises(BundleError, match="256 MiB"):
        check_model(path)


def test_our_models_pass(make_model: ModelFactory, tmp_path: Path) -> None:
    data = make_model()
    check_model(data)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    check_model(path)


def test_an_empty_file_and_the_word_alone(tmp_path: Path, make_model: ModelFactory) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(BundleError, match="empty"):
        check_model(tmp_path / "empty")
    model = onnx.load_from_string(make_model())
    model.doc_string = "location"
    model.graph.initializer[0].doc_string = "location"
    check_model(model.SerializeToString())


def test_a_bundle_is_held_to_it(
    make_bundle: BundleFactory, tiny_manifest: Callable[[], Any]
) -> None:
    """Its hashes are right: whoever makes a model can make a manifest."""
    import hashlib

    model, _ = REFUSED["functions that call functions"]()
    data = model.SerializeToString()
    manifest = tiny_manifest()
    manifest["files"]["model.onnx"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    folder = make_bundle(manifest)
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(SessionError, match=r"model\.onnx: [\d,]+ operators, more than"):
        open_session(Bundle.open(folder))


@given(data=st.data())
def test_damaged_models_are_refused_or_pass_and_nothing_else(
    make_model: ModelFactory, data: st.DataObject
) -> None:
    model = bytearray(make_model())
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(model)))
    for candidate in (bytes(model), bytes(model[:cut])):
        with contextlib.suppress(BundleError):
            check_model(candidate)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_pass_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        check_model(data)
