"""Ranges of the four methods: against ONNX Runtime's calibrators, numpy, and plain search."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from onnxruntime.quantization import calibrate as ort

from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.ranges import (
    METHODS,
    Method,
    Range,
    clipped_share,
    grid,
    mse_range,
    percentile_range,
    squared_error,
)
from qmdd.models.histogram import Bins, Histogram
from qmdd.models.quantizers import MinMaxActivation

F32 = npt.NDArray[np.float32]

values = arrays(np.float32, st.integers(1, 300), elements=st.floats(-50, 200, width=32))
widths = st.sampled_from([1, 2, 3, 4, 8])


def _of(x: F32) -> Histogram:
    found = Histogram()
    found.add(x)
    return found


def _tensor(kind: str, size: int = 200_000) -> F32:
    """What layers see: PReLU of something normal, with a long tail; symmetric; all positive."""
    rng = np.random.default_rng(len(kind))
    normal = rng.normal(0, 1, size)
    x = {
        "prelu": np.where(normal < 0, 0.2 * normal, normal) * rng.gamma(2, 1, size),
        "normal": normal,
        "relu": np.maximum(normal - 0.5, 0) * 3,
        "positive": rng.lognormal(0, 0.7, size),
    }[kind]
    return x.astype(np.float32)


KINDS = ("prelu", "normal", "relu", "positive")


class _Reader(ort.CalibrationDataReader):
    def __init__(self, batches: Sequence[F32]) -> None:
        self._batches = iter([{"x": batch} for batch in batches])

    def get_next(self) -> dict[str, F32]:
        return next(self._batches, {})


def _onnxruntime(
    batches: Sequence[F32], method: ort.CalibrationMethod, folder: Path, **options: object
) -> tuple[float, float]:
    """The range that ONNX Runtime's calibrator finds for a graph's input ``x``."""
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, folder / "model.onnx")
    with contextlib.redirect_stdout(io.StringIO()):
        calibrator = ort.create_calibrator(
            folder / "model.onnx",
            ["Relu"],
            str(folder / "augmented.onnx"),
            method,
            extra_options=options,
        )
        calibrator.collect_data(_Reader(batches))
        low, high = calibrator.compute_data()["x"].range_value
    return np.asarray(low).item(), np.asarray(high).item()


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_is_onnxruntimes(kind: str, tmp_path: Path) -> None:
    """The same two floats, to the bit, over several batches."""
    batches = np.split(_tensor(kind), 4)
    found = Histogram()
    for batch in batches:
        found.add(batch)
    want = _onnxruntime(batches, ort.CalibrationMethod.MinMax, tmp_path)
    assert Method("minmax").find(found, 8) == want


@pytest.mark.parametrize("percentile", [90.0, 99.9, 99.99])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_onnxruntimes_within_its_bins(
    kind: str, percentile: float, tmp_path: Path
) -> None:
    """Both within a bin of the exact quantiles; ONNX Runtime's bin is ``2 max|x| / 2048``.

    It returns the lower edge of the bin in which the quantile falls; ours interpolates in a bin
    of at most ``range / 2048``. (Its default, ``symmetric``, is the quantile of ``|x|``.)
    """
    x = _tensor(kind)
    found = percentile_range(_of(x), percentile)
    options = {"percentile": percentile, "symmetric": False}
    theirs = _onnxruntime([x], ort.CalibrationMethod.Percentile, tmp_path, **options)
    cut = (100 - percentile) / 2
    exact = np.percentile(x, [cut, 100 - cut])
    edges = _of(x).bins().edges
    ours_bin, theirs_bin = edges[1] - edges[0], 2 * float(np.abs(x).max()) / 2048
    assert ours_bin <= (max(x.max(), 0) - min(x.min(), 0)) / 2047
    for have, want in zip(found, exact, strict=True):
        assert abs(have - want) <= ours_bin
    for have, want in zip(theirs, exact, strict=True):
        assert abs(have - want) <= theirs_bin * 1.001
    for have, want in zip(found, theirs, strict=True):
        assert abs(have - want) <= ours_bin + theirs_bin * 1.001


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntimes_entropy_with_its_defaults_is_its_minmax(kind: str, tmp_path: Path) -> None:
    """128 bins and 128 quantised bins leave it one window, the whole: no search takes place."""
    x = _tensor(kind)
    default = _onnxruntime([x], ort.CalibrationMethod.Entropy, tmp_path)
    assert default == _onnxruntime([x], ort.CalibrationMethod.MinMax, tmp_path)


@given(x=values, percentile=st.floats(50, 99.99))
def test_as_much_is_cut_off_as_was_asked_for(x: F32, percentile: float) -> None:
    """On few values too: not more than the share lies a bin or more beyond either end.

    And no more than the share lies a bin or more inside of it, which would be cut in vain.
    """
    histogram = _of(x)
    low, high = percentile_range(histogram, percentile)
    assert histogram.low <= low <= high <= histogram.high
    edges = histogram.bins().edges
    width = (edges[1] - edges[0]) * (1 + 1e-9)
    cut = (1 - percentile / 100) / 2 * x.size + 1e-9
    assert int((x < low - width).sum()) <= cut
    assert int((x > high + width).sum()) <= cut
    assert int((x <= low + width).sum()) >= cut
    assert int((x >= high - width).sum()) >= cut


@given(x=values, bits=widths)
def test_minmax_clips_nothing(x: F32, bits: int) -> None:
    """The range is that of the values."""
    assert Method("minmax").find(_of(x), bits) == (x.min(), x.max())


@given(low=st.floats(-50, 50), high=st.floats(-50, 50), bits=widths)
def test_the_grid_is_that_of_the_quantizer(low: float, high: float, bits: int) -> None:
    """Step and zero as :class:`MinMaxActivation` has them, up to float32."""
    low, high = float(np.float32(min(low, high))), float(np.float32(max(low, high)))
    quantizer = MinMaxActivation(bits)
    quantizer.low.fill_(low)
    quantizer.high.fill_(high)
    step, zero = grid(np.array([low]), np.array([high]), quantizer.top)
    assert step[0] == pytest.approx(float(quantizer.step), rel=1e-6)
    ratio = -min(low, 0.0) / step[0]
    if abs(ratio - np.floor(ratio) - 0.5) > 1e-4:
        assert zero[0] == float(quantizer.zero)


@given(x=values, bits=widths, low=st.floats(-50, 0), high=st.floats(0.125, 200))
def test_the_squared_error_is_that_of_the_quantizer(
    x: F32, bits: int, low: float, high: float
) -> None:
    """Of every value moved to its bin's middle; what the bins hide is at most a bin each."""
    histogram = _of(x)
    edges = histogram.bins().edges
    middles = (edges[1:] + edges[:-1]) / 2
    moved = middles[np.searchsorted(edges, x.astype(np.float64), side="right") - 1]
    quantizer = MinMaxActivation(bits).eval()
    quantizer.low.fill_(low)
    quantizer.high.fill_(high)
    codes = quantizer.count(torch.from_numpy(moved)) - quantizer.zero.double()
    value = (codes * quantizer.step.double()).numpy()
    have = squared_error(histogram.bins(), np.array([low]), np.array([high]), quantizer.top)[0]
    want = float(np.mean((moved - value) ** 2))
    step = float(quantizer.step)
    # A middle that falls on a threshold may round either way in float32's step.
    assert have == pytest.approx(want, rel=1e-4, abs=1e-4 * step**2)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_the_squared_error_is_least(kind: str, bits: int) -> None:
    """No range of a dense plain search is better by more than 1 %; nor are the other methods'."""
    x = _tensor(kind, 20_000)
    histogram = _of(x)
    bins, top = histogram.bins(), 2**bits - 1

    def error(*found: Range) -> npt.NDArray[np.float64]:
        low, high = np.array(found).T
        return squared_error(bins, low, high, top)

    have = error(mse_range(histogram, bits))[0]
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shares = np.linspace(0.02, 1, 50)
    tried = [Range(a * low, b * high) for a in shares for b in shares]
    assert have <= error(*tried).min() * 1.01
    others = [Method(name, 99.9).find(histogram, bits) for name in METHODS]
    assert have <= error(*others).min() * 1.0001


@given(value=st.floats(-100, 100, width=32), method=st.sampled_from(METHODS), bits=widths)
def test_constant_activations(value: float, method: str, bits: int) -> None:
    """Every method covers them: the quantizer gives the value itself back.

    Within a bin of the histogram, 1/2048 of the value, where the method looks at bins.
    """
    histogram = _of(np.full(1000, value, dtype=np.float32))
    found = Method(method).find(histogram, bits)
    step, zero = grid(np.array([found.low]), np.array([found.high]), 2**bits - 1)
    code = np.clip(np.rint(value / step), -zero, 2**bits - 1 - zero)
    assert abs(code * step - value) <= abs(value) / 1024 + 1e-7


def test_what_lies_outside_is_counted() -> None:
    """Four of eight values outside; bins are far finer than their distances."""
    x = np.array([-3, -1, 0, 1, 2, 3, 4, 100], dtype=np.float32)
    assert clipped_share(_of(x), -2.5, 2.5) == 0.5


def test_what_a_method_needs() -> None:
    """Percentile: a value beyond each end; entropy: as many as bins; squared error: as levels."""
    assert Method("minmax").needs(8) == 1
    assert Method("percentile", 99.99).needs(8) == 20_000
    assert Method("percentile", 99.0).needs(8) == 200
    assert Method("entropy").needs(2) == 2048
    assert Method("mse").needs(4) == 16


@pytest.mark.parametrize(
    ("name", "percentile", "said"),
    [
        ("max", 99.0, "there are minmax, percentile, entropy, mse"),
        ("percentile", 100.0, "100 is minmax"),
        ("percentile", 49.0, "between 50 and 100"),
    ],
)
def test_methods_that_are_none(name: str, percentile: float, said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        Method(name, percentile)


def test_bins_have_middles() -> None:
    assert Bins(np.ones(2), np.array([0.0, 1.0, 2.0])).centres.tolist() == [0.5, 1.5]
