"""Bundles whose hashes are right and whose content is hostile, and manifests that are too large."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qmdd.runtime.files import sha256_of

from .case import Case

if TYPE_CHECKING:
    import onnx

#: Reads a bundle, and runs it on an image.
_DETECT = ("detect", "{}/bundle", "{}/image.png")


def bundle_cases(bundle: Path) -> Iterator[Case]:
    """Every case, each made from ``bundle``."""

    def model(name: str, make: Callable[[], onnx.ModelProto], says: str) -> Case:
        return Case(name, lambda folder: with_model(bundle, folder, make()), _DETECT, (1,), says)

    def manifest(name: str, make: Callable[[Path], None], says: str) -> Case:
        def changed(folder: Path) -> None:
            _copied(bundle, folder)
            make(folder / "bundle" / "manifest.json")

        return Case(name, changed, _DETECT, (1,), says)

    yield model("a model of 10^9 operators in 2 kB", _functions, "operators")
    yield model("a model of 300,000 operators", lambda: _chain(300_000), "operators")
    yield Case(
        "a model of 65,000 operators, wide",
        lambda folder: with_model(bundle, folder, _wide(65_000)),
        _DETECT,
        (0,),
    )
    yield model("a model of 1,000 levels of graphs", lambda: _nested(1000), "")
    yield model("a model that makes 14 GB of two rows", lambda: _outer("zeros"), "needs more than")
    yield model("a model that makes 14 GB of a pixel", lambda: _outer("pixels"), "needs more than")
    yield model("a model that fills 14 GB", _filled, "needs more than")
    yield model("a model that pads to 10^9 pixels", _padded, "needs more than")
    yield model("a model with weights in another file", _external, "another file")
    yield model("a model that states 2^40 weights", _stated, "")
    yield manifest("a manifest of 1 GB", lambda path: _sparse(path, 1 << 30), "larger than 4 MiB")
    yield manifest("a manifest of 1,000,000 levels", lambda path: _text(path, "[" * 1_000_000), "")
    yield manifest(
        "a manifest of 4 MB of lists", lambda path: _text(path, f"[{'[],' * 999_999}[]]"), ""
    )
    yield manifest(
        "a manifest of a number of 4,000,000 digits", lambda path: _text(path, "9" * 4_000_000), ""
    )
    yield manifest(
        "a manifest that lists 100,000 files",
        lambda path: _listing(path, 100_000),
        "not one of ours",
    )
    yield Case(
        "a model file of 1.9 GB",
        lambda folder: _with_bytes(bundle, folder, None),
        _DETECT,
        (1,),
        "256 MiB",
    )
    yield Case(
        "a model of 10^9 operators, estimate",
        lambda folder: with_model(bundle, folder, _functions()),
        ("estimate", "{}/bundle", "--target", "orin-nano"),
        (1,),
        "operators",
    )


def _copied(bundle: Path, folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(folder / "image.png")
    return Path(shutil.copytree(bundle, folder / "bundle"))


def with_model(bundle: Path, folder: Path, model: onnx.ModelProto) -> None:
    """The bundle with another model, and the right hash; beside it, ``image.png``."""
    _with_bytes(bundle, folder, model.SerializeToString())


def _with_bytes(bundle: Path, folder: Path, data: bytes | None) -> None:
    """The bundle with another model, ``None`` for one of 1.9 GB of zeros, and the right hash."""
    copy = _copied(bundle, folder)
    path = copy / "model.onnx"
    if data is None:
        _sparse(path, 1_900_000_000)
    else:
        path.write_bytes(data)
    content = json.loads((copy / "manifest.json").read_text())
    content["files"]["model.onnx"] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    (copy / "manifest.json").write_text(json.dumps(content))


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)


def _listing(path: Path, count: int) -> None:
    content = json.loads(path.read_text())
    entry = {"sha256": "0" * 64, "bytes": 1}
    files = {f"{number}": entry for number in range(count)}
    # Short enough for 4 MiB: what counts is how many.
    content["files"] = dict(list(files.items())[:30_000]) | content["files"]
    path.write_text(json.dumps(content, separators=(",", ":")))


def _model(nodes: list[Any], weights: list[Any] | None = None, functions: Any = ()) -> Any:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        weights or [],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions))
    model.ir_version = 8
    return model


def _mean() -> list[Any]:
    """``image`` to ``mean``, float32 ``[N]``, by way of ``floats``."""
    from onnx import TensorProto, helper

    return [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2, 3], keepdims=0),
    ]


def _end(large: str) -> list[Any]:
    """``mean`` and the tensor ``large``, of any shape, to ``logit``."""
    from onnx import helper

    return [
        helper.make_node("ReduceMax", [large], ["most"], keepdims=0),
        helper.make_node("Add", ["mean", "most"], ["logit"]),
    ]


def _functions(depth: int = 9, fan: int = 10) -> Any:
    from onnx import helper

    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = []
    for level in range(depth + 1):
        names = ["x", *(f"t{i}" for i in range(fan - 1)), "y"]
        kind, domain = (f"F{level - 1}", "f") if level else ("Neg", "")
        nodes = [
            helper.make_node(kind, [a], [b], domain=domain) for a, b in itertools.pairwise(names)
        ]
        made.append(helper.make_function("f", f"F{level}", ["x"], ["y"], nodes, imports))
    last = helper.make_node(f"F{depth}", ["mean"], ["logit"], domain="f")
    return _model([*_mean(), last], functions=made)


def _chain(count: int) -> Any:
    from onnx import helper

    names = ["mean", *(f"t{i}" for i in range(count - 1)), "logit"]
    steps = [helper.make_node("Neg", [a], [b]) for a, b in itertools.pairwise(names)]
    return _model([*_mean(), *steps])


def _wide(count: int) -> Any:
    from onnx import helper

    leaves = [helper.make_node("Neg", ["mean"], [f"t{i}"]) for i in range(count)]
    return _model(
        [*_mean(), *leaves, helper.make_node("Sum", [f"t{i}" for i in range(count)], ["logit"])]
    )


def _nested(depth: int) -> Any:
    """Graphs within graphs, as protobuf's bytes: its writer refuses so many itself."""
    from onnx import AttributeProto, GraphProto

    attribute, graph = AttributeProto(), GraphProto()
    data = graph.SerializeToString()

    def wrapped(tag: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([tag << 3 | 2]) + length + bytes([size]) + content

    for _ in range(depth):
        attribute.name = "body"
        inner = wrapped(1, b"b") + wrapped(6, data) + bytes([20 << 3 & 0x7F | 0x80, 1, 5])
        data = wrapped(1, wrapped(4, b"If") + wrapped(5, inner))

    class Raw:
        def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
            return bytes(_model(_mean()).SerializeToString()) + wrapped(7, data)

    return Raw()


def _outer(of: str) -> Any:
    import numpy as np
    from onnx import helper, numpy_helper

    side = 60_000
    weights = [
        numpy_helper.from_array(np.zeros((side, 1), "f4"), "column"),
        numpy_helper.from_array(np.zeros((1, side), "f4"), "row"),
    ]
    first = "column"
    nodes = _mean()
    if of == "pixels":
        first = "long"
        nodes += [
            helper.make_node("ReduceMean", ["floats"], ["one"], keepdims=0),
            helper.make_node("Add", ["one", "column"], ["long"]),
        ]
    nodes.append(helper.make_node("Add", [first, "row"], ["large"]))
    return _model([*nodes, *_end("large")], weights)


def _filled() -> Any:
    import numpy as np
    from onnx import helper, numpy_helper

    shape = numpy_helper.from_array(np.array([60_000, 60_000]), "shape")
    fill = helper.make_node("ConstantOfShape", ["shape"], ["large"])
    return _model([*_mean(), fill, *_end("large")], [shape])


def _padded() -> Any:
    import numpy as np
    from onnx import helper, numpy_helper

    pads = numpy_helper.from_array(np.array([0, 0, 16_000, 16_000] * 2), "pads")
    pad = helper.make_node("Pad", ["floats", "pads"], ["large"])
    return _model([*_mean(), pad, *_end("large")], [pads])


def _external() -> Any:
    from onnx import TensorProto

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="manifest.json")
    return _model([*_mean(), *_end("w")], [tensor])


def _stated() -> Any:
    from onnx import TensorProto

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20])
    return _model([*_mean(), *_end("w")], [tensor])
