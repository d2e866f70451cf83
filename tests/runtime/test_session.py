"""ONNX Runtime behind a narrow door: one input, named outputs, one kind of error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import TensorProto

from qmdd.runtime.errors import SessionError
from qmdd.runtime.session import OnnxSession

U8 = npt.NDArray[np.uint8]
ModelFactory = Callable[..., bytes]


def _flat(*levels: int, side: int = 32) -> U8:
    """Images of one level each: their mean is exact in float32."""
    image = np.ones((1, 3, side, side), dtype=np.uint8)
    return np.concatenate([image * np.uint8(level) for level in levels])


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("threads", [None, 1, 2])
def test_logits_are_the_models(
    make_model: ModelFactory, optimize: bool, threads: int | None
) -> None:
    session = OnnxSession(make_model(), optimize=optimize, threads=threads)
    logits = session.logits(_flat(0, 128, 160, 255))
    assert logits.dtype == np.float32
    assert logits.tolist() == [-4.0, 0.0, 1.0, 127 / 32]
    assert session.logits(_flat(96, side=34)).tolist() == [-1.0]


def test_the_optimiser_and_the_threads_are_as_asked(make_model: ModelFactory) -> None:
    level = onnxruntime.GraphOptimizationLevel
    for optimize, expected in ((True, level.ORT_ENABLE_ALL), (False, level.ORT_DISABLE_ALL)):
        session = OnnxSession(make_model(), optimize=optimize, threads=3)._session
        options = session.get_session_options()
        assert options.graph_optimization_level == expected
        assert options.intra_op_num_threads == 3
        assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_path_and_bytes_are_the_same_model(make_model: ModelFactory, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_model())
    assert OnnxSession(path).logits(_flat(64)).tolist() == [-2.0]


@pytest.mark.parametrize("name", [b"\xf3ast", b"\xffast"])
def test_a_refusal_that_is_no_text_prints_nothing(
    make_model: ModelFactory, capfd: pytest.CaptureFixture[str], name: bytes
) -> None:
    """ONNX Runtime's Python part would print on stdout, where results stand, and try again."""
    with pytest.raises(SessionError, match="cannot be loaded"):
        OnnxSession(make_model().replace(b"Cast", name))
    assert capfd.readouterr().out == ""


def test_outputs_are_chosen_by_name(make_model: ModelFactory) -> None:
    assert sorted(OnnxSession(make_model()).run(_flat(7))) == ["logit", "mean"]
    only = OnnxSession(make_model(), outputs=["mean"])
    assert only.outputs == ("mean",)
    assert {name: array.tolist() for name, array in only.run(_flat(7, 8)).items()} == {
        "mean": [7.0, 8.0]
    }
    with pytest.raises(SessionError, match="logit is not among its outputs"):
        only.logits(_flat(7))
    with pytest.raises(SessionError, match="has no output codes, x; outputs: logit, mean"):
        OnnxSession(make_model(), outputs=["codes", "logit", "x"])


def test_arrays_in_another_memory_order_give_the_same(make_model: ModelFactory) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 34, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    session = OnnxSession(make_model(), threads=1)
    expected = session.logits(np.ascontiguousarray(images))
    np.testing.assert_array_equal(session.logits(images), expected)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 32, 32), dtype=np.float32),
        np.zeros((3, 32, 32), dtype=np.uint8),
        np.zeros((1, 1, 32, 32), dtype=np.uint8),
        np.zeros((1, 32, 32, 3), dtype=np.uint8),
    ],
)
def test_other_images_are_refused(make_model: ModelFactory, images: U8) -> None:
    with pytest.raises(SessionError, match=r"must be uint8 \[count, 3, height, width\], got"):
        OnnxSession(make_model()).run(images)


@pytest.mark.parametrize("data", [b"", b"these are words", b"\x08\x08", bytes(100)])
def test_what_is_no_model_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for model in (data, path):
        with pytest.raises(SessionError, match="cannot be loaded") as caught:
            OnnxSession(model)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700


def test_a_truncated_model_is_refused(make_model: ModelFactory) -> None:
    with pytest.raises(SessionError):
        OnnxSession(make_model()[:-20])


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"absent\.onnx: no such model file"):
        OnnxSession(tmp_path / "absent.onnx")


def test_a_model_with_another_input_is_refused(make_model: ModelFactory) -> None:
    with pytest.raises(SessionError, match=r"uint8.*it has image: tensor\(float\)"):
        OnnxSession(make_model(dtype=TensorProto.FLOAT))


def test_a_failing_run_is_one_line(make_model: ModelFactory) -> None:
    session = OnnxSession(make_model(side=32))
    with pytest.raises(SessionError, match=r"cannot run on \[1, 3, 64, 64\]") as caught:
        session.run(_flat(1, side=64))
    assert "\n" not in str(caught.value)


def test_a_logit_of_another_shape_is_refused(make_model: ModelFactory) -> None:
    session = OnnxSession(make_model(keep=True))
    with pytest.raises(SessionError, match=r"logit must be float32 \[2\], got .* \[2, 1, 1, 1\]"):
        session.logits(_flat(1, 2))


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_at_least_one(make_model: ModelFactory, threads: int) -> None:
    with pytest.raises(SessionError, match="at least 1"):
        OnnxSession(make_model(), threads=threads)


def test_nothing_is_printed(make_model: ModelFactory, capfd: pytest.CaptureFixture[str]) -> None:
    OnnxSession(make_model()).run(_flat(1))
    assert capfd.readouterr() == ("", "")


def test_a_missing_onnxruntime_is_named(
    make_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SessionError, match=r"pip install 'qmdd\[runtime\]'"):
        OnnxSession(make_model())


def test_a_library_that_is_there_and_cannot_be_loaded_is_not_called_missing(
    make_model: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its shared objects find no room in memory."""

    def broken(_name: str) -> None:
        raise ImportError("failed to map segment from shared object")

    monkeypatch.setattr("qmdd.runtime.session.import_module", broken)
    with pytest.raises(SessionError, match="onnxruntime cannot be loaded: failed to map segment"):
        OnnxSession(make_model())
