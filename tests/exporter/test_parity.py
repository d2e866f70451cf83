"""Parity: exact where it should be, over every kind of detector, and blind to no planted fault."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from qmdd.exporter import parity as parity_module
from qmdd.exporter.errors import ParityError
from qmdd.exporter.export import CONTRACT
from qmdd.exporter.lower import check_quantised, onnx_for_target
from qmdd.exporter.parity import (
    BATCH,
    BATCH_PIXELS,
    batches,
    compare,
    recorded_codes,
    source_outputs,
)
from qmdd.exporter.targets import find_target
from qmdd.models import Detector, quantised_chains
from qmdd.models.checkpoint import freeze
from qmdd.models.packing import pack_plane, unpack_plane
from qmdd.runtime import tiers
from qmdd.runtime.errors import BundleError, ImageError
from qmdd.runtime.parity import LOGIT_BAR, TIERS, LayerResult, TierResult
from qmdd.runtime.session import OnnxSession

TraceOnce = Callable[[Detector], onnx.ModelProto]
F32 = npt.NDArray[np.float32]

CHOICES: dict[str, tuple[Any, ...]] = {
    "arch": ("resnet23", "resnet50", "mobilenetv2"),  # ResNet-34 is ResNet-23, only deeper
    "bits": (1, 2, 3, 4, 8),
    "activation": ("n2uq", "lsq", "minmax", "binary"),
    "weight": ("n2uq", "lsq", "minmax", "binary"),
    "slr": (True, False),
    "cqb": (True, False),
    "representation": ("npr", "rgb"),
}


def _possible(row: dict[str, Any]) -> bool:
    """``binary`` is of one bit, and the grids of LSQ and MinMax weights are not."""
    binary = row["activation"] == "binary" or row["weight"] == "binary"
    return row["weight"] not in ("lsq", "minmax") if row["bits"] == 1 else not binary


ROWS = [
    row
    for values in itertools.product(*CHOICES.values())
    if _possible(row := dict(zip(CHOICES, values, strict=True)))
]


def _pairs(row: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {(a, row[a], b, row[b]) for a, b in itertools.combinations(CHOICES, 2)}


def _pairwise() -> list[dict[str, Any]]:
    """Few detectors in which every pair of choices occurs together: greedy, the same each time."""
    open_pairs = set().union(*map(_pairs, ROWS))
    chosen = []
    while open_pairs:
        best = max(ROWS, key=lambda row: len(_pairs(row) & open_pairs))
        open_pairs -= _pairs(best)
        chosen.append(best)
    return chosen


def _write(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _lowered(detector: Detector, trace_once: TraceOnce, target: str = "onnx") -> onnx.ModelProto:
    return onnx_for_target(trace_once(detector), find_target(target), "own", 21).model


@pytest.mark.parametrize("row", _pairwise(), ids=lambda row: "-".join(str(v) for v in row.values()))
def test_every_kind_of_detector_is_exact(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    pictures: list[Path],
    spread_of_codes: Callable[..., int],
    row: dict[str, Any],
) -> None:
    """0 wrong codes in both tiers and both targets; odd batches, 70x94 and 32x32 pixels."""
    detector = make_detector(**row, seed=row["bits"])
    images = next(batches(pictures, CONTRACT))
    layers = len(quantised_chains(detector))
    # The test sees something: most layers meet many of their codes.
    assert spread_of_codes(detector, images, min(2 ** (row["bits"] - 1), 32)) >= layers - 2
    for target in ("onnx", "canonical"):
        path = _write(_lowered(detector, trace_once, target), tmp_path)
        for tier in compare(detector, path, pictures, CONTRACT, threads=1):
            assert tier.wrong_codes == 0, (target, tier.tier)
            assert tier.max_abs_logit_diff <= LOGIT_BAR
            assert tier.passed
            assert (tier.images, tier.flipped_verdicts, len(tier.layers)) == (2, 0, layers)
            assert all(layer.codes > 0 for layer in tier.layers)


def test_all_pairs_are_covered() -> None:
    rows = _pairwise()
    assert len(rows) <= 24
    assert all(map(_possible, rows))
    assert set().union(*map(_pairs, rows)) == set().union(*map(_pairs, ROWS))


def _layer(detector: Detector, name: str) -> Any:
    return dict(quantised_chains(detector))[name]


@pytest.mark.parametrize("cqb", [True, False])
def test_chains_that_are_not_monotone_are_exact(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    pictures: list[Path],
    cqb: bool,
) -> None:
    """Negative and zero slopes, negative and zero batch-norm scales, shifts beyond all thresholds.

    A zero slope maps all negative numbers to one code: its channel has thresholds at minus
    infinity, several of them equal.
    """
    detector = make_detector(seed=3, cqb=cqb)
    with torch.no_grad():
        for index, (name, layer) in enumerate(quantised_chains(detector)):
            layer.prelu.weight[0] = 0.0
            layer.shift_out.bias[0] = 1.5
            layer.shift_out.bias[1] = -50.0
            layer.shift_out.bias[2] = 50.0
            norm = detector.get_submodule(f"{name}.conv.bn")
            norm.weight[3] = -0.7  # type: ignore[index,operator]
            norm.weight[4] = 0.0  # type: ignore[index,operator]
            if index % 3 == 1:
                layer.prelu.weight[5] = -0.4
    lowered = onnx_for_target(trace_once(detector), find_target("onnx"), "own", 21)
    check_quantised(lowered.model)
    slopes = [note for note in lowered.notes if "PReLU slopes are negative" in note]
    factors = [note for note in lowered.notes if "factors are not positive" in note]
    assert len(slopes) == 3
    assert bool(factors) == (not cqb)
    path = _write(lowered.model, tmp_path)
    for tier in compare(detector, path, pictures, CONTRACT, threads=1):
        assert (tier.wrong_codes, tier.passed) == (0, True)


def test_frozen_and_latent_are_the_same_source(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    path = _write(_lowered(small, trace_once), tmp_path)
    frozen = freeze(copy.deepcopy(small))
    for detector in (small, frozen):
        assert all(tier.passed for tier in compare(detector, path, pictures, CONTRACT, threads=1))


# --- planted faults ---------------------------------------------------------------------------


class _Marginal:
    """A detector with a threshold right above an activation that occurs, and where that is.

    LSQ without SLR codes ``round(x / step)``, half to even: with ``step = 2 * x0`` the number
    ``x0`` is the last one with code 0. ``x0`` is an input of the last quantizer, in ``channel``;
    there ``x = acc * m`` alone, and one ulp of ``m`` moves ``x0`` by at least one.
    """

    layer = "stages.3.0.conv2"

    def __init__(self, make_detector: Callable[..., Detector], images: npt.NDArray[np.uint8]):
        self.detector = make_detector(activation="lsq", slr=False, seed=5)
        before: Any = self.detector.get_submodule("stages.3.0.conv1")
        act = self._act()
        with torch.no_grad():
            for parameter in (act.shift_in.bias, act.shift_out.bias, before.conv.bn.bias):
                parameter.zero_()
            before.conv.bn.running_mean.zero_()
            before.alpha.fill_(1.0)
            m = before.conv.affine(
                before.conv.frozen(), before.act.quantizer.step, before.alpha
            ).multiplier
        seen: list[torch.Tensor] = []
        handle = act.prelu.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        source_outputs(self.detector, images)
        handle.remove()
        self.inputs: F32 = seen[0].numpy()
        steep = np.frexp(self.inputs)[0] >= np.frexp(m.numpy())[0].reshape(1, -1, 1, 1)
        candidates = np.where(steep & (self.inputs > 0), self.inputs, np.float32(0))
        at = np.argsort(candidates, axis=None)[-(candidates > 0).sum() // 4]  # among the larger
        self.x0 = candidates.reshape(-1)[at]
        self.channel = int(np.unravel_index(at, candidates.shape)[1])
        self.hits = int((self.inputs[:, self.channel] == self.x0).sum())
        with torch.no_grad():
            act.quantizer.raw_step.fill_(float(self.x0) * 2)

    def _act(self) -> Any:
        return _layer(self.detector, self.layer)

    def model(self, trace_once: TraceOnce) -> onnx.ModelProto:
        return _lowered(self.detector, trace_once)


@pytest.fixture
def marginal(make_detector: Callable[..., Detector], pictures: list[Path]) -> _Marginal:
    (images,) = batches(pictures[:1], CONTRACT)
    return _Marginal(make_detector, images)


def _change(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> None:
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    values = numpy_helper.to_array(tensor).copy()
    tensor.raw_data = np.ascontiguousarray(change(values)).astype(values.dtype).tobytes()


def _both(
    detector: Detector, model: onnx.ModelProto, folder: Path, images: list[Path]
) -> list[TierResult]:
    return compare(detector, _write(model, folder), images, CONTRACT, threads=1)


def test_a_threshold_one_float_off_is_found(
    tmp_path: Path, marginal: _Marginal, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    """Exactly the activations that lie between the two floats have another code."""
    model = marginal.model(trace_once)
    assert all(t.passed for t in _both(marginal.detector, model, tmp_path, pictures[:1]))

    def lower(table: F32) -> F32:
        entry = table[0, marginal.channel, 0, 0]
        assert entry == np.nextafter(marginal.x0, np.float32(np.inf))
        table[0, marginal.channel, 0, 0] = marginal.x0
        return table

    _change(model, f"{marginal.layer}.t0", lower)
    assert marginal.hits >= 1
    for tier in _both(marginal.detector, model, tmp_path, pictures[:1]):
        assert not tier.passed
        assert tier.wrong_codes == marginal.hits
        wrong = {layer.layer: layer.wrong for layer in tier.layers if layer.wrong}
        assert wrong == {marginal.layer: marginal.hits}


def test_a_multiplier_one_ulp_off_is_found(
    tmp_path: Path, marginal: _Marginal, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    """``acc * m`` of the convolution before: the marginal activation crosses its threshold."""
    model = marginal.model(trace_once)

    def up(values: F32) -> F32:
        at = (0, marginal.channel, 0, 0)
        values[at] = np.nextafter(values[at], np.float32(np.inf))
        return values

    _change(model, "stages.3.0.conv1.conv.multiplier", up)
    for tier in _both(marginal.detector, model, tmp_path, pictures[:1]):
        assert not tier.passed
        assert tier.wrong_codes >= marginal.hits
        assert [layer.layer for layer in tier.layers if layer.wrong] == [marginal.layer]


@pytest.mark.parametrize("opset", [21, 25])
def test_a_changed_weight_is_found(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, pictures: list[Path], opset: int
) -> None:
    """One of 576 2-bit codes, one level off, in bytes and as UINT2."""
    model = onnx_for_target(trace_once(small), find_target("onnx"), "own", opset).model
    name = "stages.0.0.conv1.conv.index." + ("bytes" if opset < 25 else "uint2")
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    count = 8 * 8 * 9
    index = unpack_plane(np.frombuffer(tensor.raw_data, dtype=np.uint8), 2, count).copy()
    index[count // 2] ^= 1
    tensor.raw_data = pack_plane(index, 2).tobytes()
    for tier in _both(small, model, tmp_path, pictures):
        assert tier.wrong_codes > 0
        assert not tier.passed
        first = next(layer.layer for layer in tier.layers if layer.wrong)
        assert first == "stages.0.0.conv2"  # what reads the changed convolution


def test_a_changed_head_is_found(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    """No quantizer sees the last layer: its fault shows in the logit alone."""
    model = _lowered(small, trace_once)
    _change(model, "head.fc.bias", lambda bias: bias + np.float32(4e-5))
    for tier in _both(small, model, tmp_path, pictures):
        assert tier.wrong_codes == 0
        assert LOGIT_BAR < tier.max_abs_logit_diff < 1e-4
        assert not tier.passed


def test_a_flipped_verdict_is_found(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    model = _lowered(small, trace_once)
    _change(model, "head.fc.bias", lambda bias: bias + np.float32(100))
    _change(model, "head.fc.weight", lambda weight: weight * np.float32(0))
    logits = [float(source_outputs(small, batch)[0][0]) for batch in batches(pictures, CONTRACT)]
    for tier in _both(small, model, tmp_path, pictures):
        assert tier.flipped_verdicts == sum(logit <= 0 for logit in logits)
        assert not tier.passed


def test_what_the_optimiser_does_shows_in_the_deployed_tier_alone(
    tmp_path: Path, make_detector: Callable[..., Detector], trace_once: TraceOnce
) -> None:
    """Stem weights as floats (EXACT, cause 2): exact as written, not as optimised.

    On flat 2x2 cells the stem's sums are 0, which is where this detector's first threshold lies.
    The optimiser multiplies the weights by the scale behind them; rounded, they do not cancel.
    """
    detector = make_detector(slr=False, seed=8)
    first: Any = _layer(detector, "stages.0.0.conv1")
    with torch.no_grad():
        for parameter in (first.shift_in.bias, first.shift_out.bias, detector.stem.conv.bn.bias):
            parameter.zero_()
        detector.stem.conv.bn.running_mean.zero_()
        first.quantizer.start.copy_(-first.quantizer.a[0] / 2)  # code 1 begins above 0
    cells = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = tmp_path / "cells.png"
    Image.fromarray(cells.repeat(2, axis=0).repeat(2, axis=1)).save(image)
    model = _lowered(detector, trace_once)
    (restore,) = [n for n in model.graph.node if n.input[0].startswith("stem.weight")]
    (tensor,) = [t for t in model.graph.initializer if t.name == restore.input[0]]
    floats = numpy_helper.from_array(
        numpy_helper.to_array(tensor).astype(np.float32), restore.output[0]
    )
    assert all(tier.passed for tier in _both(detector, model, tmp_path, [image]))
    model.graph.node.remove(restore)
    model.graph.initializer.append(floats)
    strict, deployed = _both(detector, model, tmp_path, [image])
    assert (strict.tier, strict.wrong_codes, strict.passed) == ("strict", 0, True)
    assert deployed.layers[0].wrong > 100
    assert not deployed.passed


def test_a_fault_of_one_tier_is_charged_to_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: Detector,
    trace_once: TraceOnce,
    pictures: list[Path],
) -> None:
    """The optimised session answers one code wrongly; the strict one is untouched."""

    class Faulty(OnnxSession):
        def __init__(self, model: bytes, *, optimize: bool, **options: Any) -> None:
            super().__init__(model, optimize=optimize, **options)
            self.faulty = optimize

        def run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
            found = super().run(images)
            if self.faulty:
                codes = found["stages.1.0.conv2.codes"].copy()
                codes.reshape(-1)[0] ^= 1
                found["stages.1.0.conv2.codes"] = codes
            return found

    monkeypatch.setattr(tiers, "OnnxSession", Faulty)
    path = _write(_lowered(small, trace_once), tmp_path)
    strict, deployed = compare(small, path, pictures, CONTRACT, threads=1)
    assert (strict.wrong_codes, strict.passed) == (0, True)
    assert (deployed.wrong_codes, deployed.passed) == (2, False)  # one in each batch
    assert {la.layer: la.wrong for la in deployed.layers if la.wrong} == {"stages.1.0.conv2": 2}


def _answering(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Let every session's answers pass through ``change``."""

    class Changed(OnnxSession):
        def run(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
            return change(super().run(images))

    monkeypatch.setattr(tiers, "OnnxSession", Changed)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_do_not_pass(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: Detector,
    trace_once: TraceOnce,
    pictures: list[Path],
    value: float,
) -> None:
    """In the first batch, with a sound one after it; the difference stays a NaN or infinite."""
    batch = itertools.count()

    def change(found: dict[str, Any]) -> dict[str, Any]:
        if next(batch) < len(TIERS):
            found["logit"] = np.full_like(found["logit"], value)
        return found

    _answering(monkeypatch, change)
    path = _write(_lowered(small, trace_once), tmp_path)
    for tier in compare(small, path, pictures, CONTRACT, threads=1):
        assert not math.isfinite(tier.max_abs_logit_diff)
        assert not tier.passed


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_equal_infinities_do_not_pass(value: float) -> None:
    """Both sides overflow alike: no verdict can rest on that."""
    result = TierResult("strict", layers=[LayerResult("a")])
    logits = np.float32([value])
    codes = np.zeros((1, 1, 1, 1), dtype=np.uint8)
    result.add(logits, {"a": codes}, {"logit": logits, "a.codes": codes})
    assert not result.passed


@pytest.mark.parametrize(
    ("name", "shape"),
    [("logit", lambda a: a[:, None]), ("stages.0.0.conv2.codes", lambda a: a[:, :1])],
)
def test_outputs_of_another_shape_are_not_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: Detector,
    trace_once: TraceOnce,
    pictures: list[Path],
    name: str,
    shape: Callable[[Any], Any],
) -> None:
    """Broadcasting would count codes that are not there."""
    _answering(monkeypatch, lambda found: {**found, name: shape(found[name])})
    path = _write(_lowered(small, trace_once), tmp_path)
    with pytest.raises(BundleError, match=f"{name.removesuffix('.codes')}.* shape"):
        compare(small, path, pictures, CONTRACT, threads=1)


def test_nothing_compared_does_not_pass() -> None:
    assert not TierResult("strict").passed
    assert not TierResult("strict", images=0, layers=[LayerResult("a", 5, 0)]).passed
    assert not TierResult("strict", images=1, layers=[]).passed


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({}, True),
        ({"max_abs_logit_diff": LOGIT_BAR}, True),
        ({"max_abs_logit_diff": LOGIT_BAR * 1.001}, False),
        ({"max_abs_logit_diff": math.nan}, False),
        ({"flipped_verdicts": 1}, False),
        ({"layers": [LayerResult("a", 5, 0), LayerResult("b", 5, 1)]}, False),
    ],
)
def test_a_tier_passes_only_whole(change: dict[str, Any], passed: bool) -> None:
    base: dict[str, Any] = {"tier": "strict", "images": 1, "layers": [LayerResult("a", 5, 0)]}
    result = TierResult(**{**base, **change})
    assert result.passed is passed
    assert result.to_dict()["wrong_codes"] == result.wrong_codes


def test_compare_needs_images_and_known_tiers(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    path = _write(_lowered(small, trace_once), tmp_path)
    with pytest.raises(ParityError, match="at least one image; name some with --images"):
        compare(small, path, [], CONTRACT)
    with pytest.raises(ParityError, match="no tier 'fast'; there are strict, deployed"):
        compare(small, path, pictures, CONTRACT, tiers=["strict", "fast"])
    (only,) = compare(small, path, pictures, CONTRACT, tiers=["deployed"], threads=1)
    assert (only.tier, only.passed) == ("deployed", True)


def test_another_detectors_model_is_not_compared(
    tmp_path: Path,
    small: Detector,
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    pictures: list[Path],
) -> None:
    path = _write(_lowered(small, trace_once), tmp_path)
    with pytest.raises(ParityError, match="its quantizers are not those of the source checkpoint"):
        compare(make_detector("resnet50"), path, pictures, CONTRACT)


def test_the_same_architecture_with_other_weights_misses_parity(
    tmp_path: Path,
    small: Detector,
    make_detector: Callable[..., Detector],
    trace_once: TraceOnce,
    pictures: list[Path],
) -> None:
    path = _write(_lowered(small, trace_once), tmp_path)
    for tier in compare(make_detector(seed=1), path, pictures, CONTRACT, threads=1):
        assert tier.wrong_codes > tier.codes_compared // 10
        assert not tier.passed


# --- the source's side ------------------------------------------------------------------------


def test_the_source_is_the_models_own_evaluation(small: Detector) -> None:
    """Recorded codes are those of the real quantizers; recording leaves no trace."""
    images = np.random.default_rng(2).integers(0, 256, (2, 3, 40, 36), dtype=np.uint8)
    with torch.no_grad():
        plain = small(torch.from_numpy(images)).numpy()
    seen: dict[str, torch.Tensor] = {}
    handles = [
        layer.shift_in.register_forward_pre_hook(
            lambda _, given, name=name: seen.__setitem__(name, given[0])
        )
        for name, layer in quantised_chains(small)
    ]
    logits, codes = source_outputs(small, images)
    for handle in handles:
        handle.remove()
    np.testing.assert_array_equal(plain, logits)
    assert list(codes) == [name for name, _ in quantised_chains(small)]
    for name, layer in quantised_chains(small):
        want = layer.codes(seen[name]).codes.numpy()
        assert codes[name].dtype == np.uint8
        np.testing.assert_array_equal(codes[name], want)
        assert "codes" not in vars(layer)


def test_recording_ends_where_the_forward_fails(small: Detector) -> None:
    def fail() -> Iterator[None]:
        with recorded_codes(small):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert all("codes" not in vars(layer) for _, layer in quantised_chains(small))


def test_images_of_one_size_go_together(tmp_path: Path, pictures: list[Path]) -> None:
    """At most :data:`BATCH` at once, order kept, sizes never mixed."""
    assert BATCH * 70 * 94 < BATCH_PIXELS
    same = [pictures[0]] * (BATCH + 1)
    shapes = [batch.shape for batch in batches([*same, pictures[1], pictures[0]], CONTRACT)]
    assert shapes == [(BATCH, 3, 70, 94), (1, 3, 70, 94), (1, 3, 32, 32), (1, 3, 70, 94)]


def test_larger_images_may_take_more_and_every_tier_opens_its_model_once_more(
    tmp_path: Path,
    small: Detector,
    trace_once: TraceOnce,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []
    real = parity_module._session

    def noted(*args: Any) -> Any:
        opened.append(args[-1].most >> 20)
        return real(*args)

    def bound(_images: int = 1, pixels: int = 0) -> int:
        return (300 if pixels > 32 * 32 else 200) << 20

    monkeypatch.setattr(parity_module, "_session", noted)
    monkeypatch.setattr(parity_module, "bytes_for", bound)
    path = _write(_lowered(small, trace_once), tmp_path)
    images = [pictures[1], pictures[0], pictures[1], pictures[0]]
    assert all(tier.passed for tier in compare(small, path, images, CONTRACT, threads=1))
    assert opened == [200, 200, 300, 300]


def test_an_unreadable_image_ends_the_comparison(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    """A list that is not whole proves less than it says."""
    path = _write(_lowered(small, trace_once), tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:200])
    for file in (broken, tmp_path / "absent.png"):
        with pytest.raises(ImageError, match=file.name):
            compare(small, path, [pictures[0], file], CONTRACT)


def test_progress_is_reported(
    tmp_path: Path, small: Detector, trace_once: TraceOnce, pictures: list[Path]
) -> None:
    path = _write(_lowered(small, trace_once), tmp_path)
    said: list[tuple[str, int, int]] = []
    compare(small, path, pictures, CONTRACT, threads=1, report=lambda *a: said.append(a))
    assert said == [("parity", 1, 2), ("parity", 2, 2)]
