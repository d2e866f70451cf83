"""ONNX models and probes of a bundle whose maker means harm: the hashes fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..kind import Kind, NotRight, Reader
from ..mutators.protobuf import mutate_protobuf
from ..workshop import Workshop, entry_of


def _read_session(_workshop: Workshop, _scratch: Path) -> Reader:
    import numpy as np

    from qmdd.runtime.session import OnnxSession

    image = np.zeros((1, 3, 32, 32), np.uint8)

    def read(data: bytes) -> None:
        for optimize in (True, False):
            with OnnxSession(data, optimize=optimize, threads=1) as session:
                session.logits(image)

    return read


def _read_native(_workshop: Workshop, _scratch: Path) -> Reader:
    import numpy as np

    from qmdd.runtime import native
    from qmdd.runtime.session import OnnxSession

    library, image = native.library_path(), np.zeros((1, 3, 32, 32), np.uint8)

    def read(data: bytes) -> None:
        with OnnxSession(data, threads=1, library=library) as session:
            session.logits(image)

    return read


def _read_probes(workshop: Workshop, _scratch: Path) -> Reader:
    import numpy as np

    from qmdd.runtime.session import OnnxSession

    model, image = workshop.file("model.onnx"), np.zeros((1, 3, 32, 32), np.uint8)

    def read(data: bytes) -> None:
        with OnnxSession(model + data, optimize=False, threads=1) as session:
            session.run(image)

    return read


def _read_graph(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.exporter.engine.inspect import inspect_bundle
    from qmdd.exporter.workload import layers_of_file
    from qmdd.runtime.bundle import manifest_bytes

    place = scratch / "bundle"
    place.mkdir()
    path = place / "model.onnx"
    held = json.loads(workshop.file("manifest.json"))
    kept = ("schema", "arch", "bits", "threshold", "input", "output")
    manifest = {**{key: held[key] for key in kept}, "target": "onnx"}

    def read(data: bytes) -> None:
        path.write_bytes(data)
        manifest["files"] = {"model.onnx": entry_of(data)}
        (place / "manifest.json").write_bytes(manifest_bytes(manifest))
        inspect_bundle(place)  # a bundle without a plan: made from the model
        layers_of_file(path, 64)

    return read


_HEAD = '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> '


def _small(_workshop: Workshop) -> list[bytes]:
    """Models of some hundred bytes: with weights in other files, functions, graphs inside."""
    from onnx import TensorProto, helper, parser

    ends = "(uint8[N,3,H,W] image) => (float[N] logit) "
    plain = parser.parse_model(
        _HEAD
        + "g "
        + ends
        + "<float[2] w = {1, 2}> { x = Cast <to = 1> (image) logit = Mul(x, w) }"
    )
    called = parser.parse_model(
        _HEAD
        + "g "
        + ends
        + "{ logit = f.two(image) } "
        + '<domain: "f", opset_import: ["" : 21]> two (a) => (b) '
        + "{ c = Cast <to = 1> (a) b = Abs(c) }"
    )
    inside = helper.make_graph([helper.make_node("Abs", ["image"], ["y"])], "then", [], [])
    nested = parser.parse_model(_HEAD + "g " + ends + "{ logit = Identity(image) }")
    nested.graph.node[0].attribute.append(helper.make_attribute("then_branch", inside))
    outside = onnx_copy(plain)
    tensor = outside.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    held = onnx_copy(plain)
    held.graph.node[0].attribute.append(helper.make_attribute("value", tensor))
    sparse = onnx_copy(plain)
    sparse.graph.sparse_initializer.add().values.CopyFrom(plain.graph.initializer[0])
    return [
        model.SerializeToString() for model in (plain, called, nested, outside, held, sparse, plain)
    ]


def onnx_copy(model: Any) -> Any:
    """Another model, the same."""
    made = type(model)()
    made.CopyFrom(model)
    return made


def _read_limits(_workshop: Workshop, _scratch: Path) -> Reader:
    import onnx

    from qmdd.runtime.onnx_limits import check_model

    def tensors(message: Any) -> Any:
        """Every tensor, sparse tensor and graph below a message, by protobuf's own reading."""
        for field, value in message.ListFields():
            values = [value] if hasattr(value, "ListFields") else value
            for one in values if field.message_type else ():
                yield field, one
                yield from tensors(one)

    def read(data: bytes) -> None:
        check_model(data)
        try:
            model = onnx.ModelProto.FromString(data)
        except Exception as error:  # DecodeError, of a library without types
            raise OSError("no protocol buffer") from error
        for field, one in tensors(model):
            name = field.message_type.name
            if name == "TensorProto" and (one.external_data or one.data_location):
                raise NotRight("weights in another file pass")
            if name == "SparseTensorProto" or (
                name == "GraphProto" and field.containing_type.name != "ModelProto"
            ):
                raise NotRight(f"{name} in {field.full_name} passes")

    return read


KINDS = (
    Kind(
        "onnx-limits",
        "what a model may hold, looked up in its bytes, beside protobuf's own reading",
        _small,
        _read_limits,
        (mutate_protobuf,),
        guided=("qmdd.runtime.onnx_limits",),
        cases=60_000,
    ),
    Kind(
        "onnx",
        "model.onnx, loaded and run by ONNX Runtime, optimiser on and off",
        lambda workshop: [workshop.file("model.onnx"), workshop.portable],
        _read_session,
        (mutate_protobuf,),
        seconds=60,
        cases=2_000,
    ),
    Kind(
        "onnx-native",
        "model.native.onnx, by ONNX Runtime with the native operators",
        lambda workshop: [workshop.file("model.native.onnx")],
        _read_native,
        (mutate_protobuf,),
        seconds=60,
        cases=10_000,
    ),
    Kind(
        "probes",
        "the probes beside a model (the end of a protocol buffer)",
        lambda workshop: [workshop.file("parity/probes.pb")],
        _read_probes,
        (mutate_protobuf,),
        seconds=60,
        cases=2_000,
    ),
    Kind(
        "onnx-graph",
        "model.onnx as qmdd inspect and estimate read it, by onnx",
        lambda workshop: [workshop.portable],
        _read_graph,
        (mutate_protobuf,),
        seconds=60,
        cases=2_000,
    ),
)
