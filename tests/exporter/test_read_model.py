"""Models of bundles whose makers mean harm: refused in one line, whatever is in the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

from qmdd.exporter.errors import ExportError
from qmdd.exporter.read_model import model_of_file, of_ours
from qmdd.exporter.workload import layers_of_file

HEAD = '<ir_version: 10, opset_import: ["" : 21]> g (uint8[N,3,H,W] image) => (float[N] logit) '


def _written(path: Path, body: str) -> Path:
    onnx.save(onnx.parser.parse_model(HEAD + body), path)
    return path


@pytest.mark.parametrize(
    "body",
    [
        "{ a = Reshape(b, s) b = Reshape(a, s) logit = Reshape(a, s) }",
        "{ a = Identity(a) logit = Identity(a) }",
        "{ a = Identity(image) a = Identity(image) logit = Identity(a) }",
    ],
    ids=["two in a circle", "one in a circle", "made twice"],
)
def test_a_graph_out_of_order_is_refused(tmp_path: Path, body: str) -> None:
    """Whoever follows such a graph back would never come to an end."""
    path = _written(tmp_path / "model.onnx", body)
    with pytest.raises(ExportError, match=r"model\.onnx: .*: its graph is out of order"):
        layers_of_file(path)


@pytest.mark.parametrize(
    "body",
    [
        "{ x = Cast <to = 1> (image) y = Conv(x) logit = ReduceMean(y) }",
        "{ x = DequantizeLinear() logit = ReduceMean(x) }",
    ],
    ids=["a product of nothing", "codes of nothing"],
)
def test_a_graph_that_is_none_of_ours_is_refused(tmp_path: Path, body: str) -> None:
    path = _written(tmp_path / "model.onnx", body)
    with pytest.raises(ExportError, match=r"^\S*model\.onnx: ") as caught:
        layers_of_file(path)
    assert "\n" not in str(caught.value)


def test_data_in_other_files_is_refused(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(HEAD + "<float[1] w = {1}> { logit = Cast <to = 1> (image) }")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/dev/zero"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="another file"):
        model_of_file(tmp_path / "model.onnx")


@pytest.mark.parametrize("error", [IndexError, KeyError, ZeroDivisionError, RecursionError])
def test_whatever_a_reader_raises_names_the_file(error: Callable[..., Exception]) -> None:
    with (
        pytest.raises(ExportError, match=r"^a/model\.onnx: no model of ours \("),
        of_ours(Path("a/model.onnx")),
    ):
        raise error("x")
    with pytest.raises(ExportError, match=r"^a/model\.onnx: told$"), of_ours(Path("a/model.onnx")):
        raise ExportError("a/model.onnx: told")
