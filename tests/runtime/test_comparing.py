"""Two detectors on the same images, facts side by side, golden codes, bars."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from qmdd.runtime.bundle import Bundle, manifest_bytes
from qmdd.runtime.comparing.bars import missed
from qmdd.runtime.comparing.facts import compared_facts, device_rows, side_of_bundle
from qmdd.runtime.comparing.golden import compare_golden
from qmdd.runtime.comparing.paired import compare_scores, mcnemar
from qmdd.runtime.evaluate import evaluate
from qmdd.runtime.folder import Sample
from qmdd.runtime.golden import Golden, write_golden
from qmdd.runtime.known_sets import Seen
from qmdd.runtime.scoring import Scored

ROOT = Path("/data")
HALF = (0.5, 0.5)


def samples_of(count: int, *generators: str) -> list[Sample]:
    """``count`` images of each class of each generator."""
    return [
        Sample(ROOT / name / str(label) / f"{index}.png", label, name)
        for name in generators
        for label in (0, 1)
        for index in range(count)
    ]


def noisy(samples: list[Sample], noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.array([sample.label for sample in samples])
    return 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(0, noise, labels.size))))


def test_values_are_those_of_an_evaluation_of_each() -> None:
    samples = samples_of(40, "alpha", "beta")
    scores = [noisy(samples, noise, seed=1) for noise in (1, 2)]
    found = compare_scores(samples, *scores, ROOT, thresholds=(0.5, 0.6))
    for side, bar in (("a", 0.5), ("b", 0.6)):
        scored = Scored(samples, scores[side == "b"], [])
        alone = evaluate(scored, ROOT, threshold=bar, seen=Seen(None, "unknown"))
        rows = [*alone.rows, alone.means[-1]]
        assert [row.generator for row in found.rows] == [row.generator for row in rows]
        for ours, theirs in zip(found.rows, rows, strict=True):
            assert getattr(ours, side) == {key: theirs.values[key] for key in ("acc", "ap")}
    for row in found.rows:
        for key in ("acc", "ap"):
            assert row.difference[key] == pytest.approx(row.b[key] - row.a[key])
            low, high = row.intervals[key]
            assert low <= row.difference[key] <= high


def test_one_detector_twice_differs_in_nothing() -> None:
    samples = samples_of(30, "alpha")
    scores = noisy(samples, 2, seed=2)
    found = compare_scores(samples, scores, scores, ROOT, thresholds=HALF)
    assert (found.only_a, found.only_b, found.verdicts, found.p) == (0, 0, 0, 1)
    assert found.max_score_diff == 0
    assert {tuple(i) for row in found.rows for i in row.intervals.values()} == {(0.0, 0.0)}


def test_what_is_hard_for_both_is_no_difference() -> None:
    """B is A but for three images: its interval is a third of what two separate ones would give."""
    samples = samples_of(100, "alpha")
    a = noisy(samples, 1.5, seed=3)
    b = a.copy()
    wrong = np.flatnonzero((a > 0.5) != np.array([s.label for s in samples]))[:3]
    b[wrong] = 1 - b[wrong]
    found = compare_scores(samples, a, b, ROOT, thresholds=HALF)
    assert (found.only_a, found.only_b, found.verdicts) == (0, 3, 3)
    assert found.p == 0.25
    low, high = found.mean.intervals["acc"]
    assert 0 <= low < 3 / 200 < high
    scored = Scored(samples, a, [])
    alone = evaluate(scored, ROOT, threshold=0.5, seen=Seen(None, "unknown"))
    apart = alone.rows[0].intervals["acc"]
    assert high - low < (apart.high - apart.low) / 3


def test_an_image_of_two_generators_is_one_image() -> None:
    shared = Sample(ROOT / "real.png", 0, "alpha")
    samples = [
        shared,
        shared._replace(generator="beta"),
        *(Sample(ROOT / name / "f.png", 1, name) for name in ("alpha", "beta")),
    ]
    a, b = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.9, 0.9, 0.9, 0.9])
    found = compare_scores(samples, a, b, ROOT, thresholds=HALF)
    assert (found.images, found.only_a, found.verdicts) == (3, 1, 1)


def test_without_one_class_there_is_no_ap() -> None:
    samples = [*samples_of(3, "alpha"), Sample(ROOT / "beta/1/x.png", 1, "beta")]
    scores = noisy(samples, 0.1, seed=4)
    found = compare_scores(samples, scores, scores, ROOT, thresholds=HALF)
    assert math.isnan(found.rows[1].difference["ap"])
    assert found.mean.difference["ap"] == 0
    only = compare_scores(samples[-1:], scores[-1:], scores[-1:], ROOT, thresholds=HALF)
    assert math.isnan(only.mean.a["ap"])


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    if only_a + only_b:
        expected = binomtest(only_a, only_a + only_b).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_of_many_images_is_a_number() -> None:
    assert mcnemar(100_000, 100_500) == pytest.approx(0.265, abs=0.001)
    assert mcnemar(0, 5_000) == 0


Bundles = Callable[..., Bundle]


@pytest.fixture
def bundle_with(make_bundle: Callable[..., Path], tiny_manifest: Callable[..., Any]) -> Bundles:
    """A bundle of the tiny model: ``bundle_with("a", golden, key=value of the manifest)``."""

    def make(name: str, golden: Golden | None = None, **more: object) -> Bundle:
        path = make_bundle(name=name)
        manifest = {**tiny_manifest(), **more}
        if golden is not None:
            where = path / "parity/golden.safetensors"
            write_golden(where, golden)
            data = where.read_bytes()
            entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            manifest["files"]["parity/golden.safetensors"] = entry
        (path / "manifest.json").write_bytes(manifest_bytes(manifest))
        return Bundle.open(path)

    return make


def golden_of(codes: dict[str, list[int]], *, seed: int = 0, logit: float = 1.0) -> Golden:
    image = np.random.default_rng(seed).integers(0, 256, (3, 32, 32), np.uint8)
    held = {layer: np.array(values, np.uint8) for layer, values in codes.items()}
    return Golden([image], np.array([logit], np.float32), [held])


def test_golden_codes_are_counted_by_layer(bundle_with: Bundles) -> None:
    a = bundle_with("a", golden_of({"x": [0, 1, 2, 3], "y": [1, 1], "gone": [1]}))
    b = bundle_with("b", golden_of({"x": [0, 1, 3, 0], "y": [1, 1, 1], "new": [1]}, logit=1.5))
    found = compare_golden(a, b)
    assert isinstance(found, dict)
    assert found["layers"] == [{"layer": "x", "codes": 4, "different": 2}]
    assert found["not_compared"] == ["y", "gone", "new"]
    assert found["max_abs_logit_diff"] == 0.5
    assert found["images"] == 1


def test_golden_results_of_other_images_are_not_compared(bundle_with: Bundles) -> None:
    a = bundle_with("a", golden_of({"x": [1]}))
    b = bundle_with("b", golden_of({"x": [1]}, seed=1))
    assert compare_golden(a, b) == "no golden image is in both"


def test_facts_stand_side_by_side_whatever_a_manifest_holds(bundle_with: Bundles) -> None:
    tier = {"tier": "strict", "wrong_codes": 3, "codes_compared": 1000, "images": 2}
    a = bundle_with("a", parity=[tier, {"tier": 5}, "x", {"tier": "bad", "images": "many"}])
    b = bundle_with("b", bits=4, parity="none", size=[1], source="text", target="cpu")
    rows = {row["what"]: row for row in compared_facts(*map(side_of_bundle, (a, b)))}
    assert rows["bits"] == {"what": "bits", "a": 2, "b": 4, "same": False}
    assert rows["network"]["same"]
    assert rows["parity, strict"]["a"] == "3 of 1,000 codes wrong, 2 images"
    assert rows["parity, strict"]["b"] is None
    assert rows["parity"]["b"] == "not checked"
    assert not [what for what in rows if "bad" in what]
    assert rows["file, SHA-256"]["same"]


def test_figures_of_devices_are_of_this_bundle_or_left_out(bundle_with: Bundles) -> None:
    bundle = bundle_with("a")
    now = hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()
    row = {"name": "native", "times": {"median_ms": 12.5}}
    bench = {"configurations": [{"threads": 2, "batch": 1, "rows": [row]}]}
    reports = {
        "good": json.dumps({"manifest_sha256": now, "bench": bench}),
        "older": json.dumps({"manifest_sha256": "0" * 64, "bench": bench}),
        "unmeasured": json.dumps({"manifest_sha256": now, "bench": None}),
        "list": "[]",
        "broken": "{",
        "deep": "[" * 100_000,
        "endless": json.dumps({"manifest_sha256": now, "bench": bench}).replace(": 2", ": 1e999"),
        "rows": json.dumps({"manifest_sha256": now, "bench": {"configurations": [{"rows": [1]}]}}),
    }
    (bundle.path / "devices").mkdir()
    for name, text in reports.items():
        (bundle.path / "devices" / f"{name}.json").write_text(text)
    (bundle.path / "devices" / "bytes.json").write_bytes(b"\xff\xfe")
    expected = {"device": "good", "runtime": "native", "threads": 2, "batch": 1, "median_ms": 12.5}
    assert device_rows(bundle) == [expected]


@pytest.mark.parametrize(
    ("bars", "lines"),
    [
        ({}, []),
        ({"size_ratio": 1.25}, []),
        ({"size_ratio": 1.2}, ["size: 1.250 times that of A, at most 1.2 allowed"]),
        ({"latency_ratio": 0.9}, ["latency: 1.000 times that of A, at most 0.9 allowed"]),
        ({"acc_drop": 0.01}, []),
        ({"ap_drop": 0.02}, ["mean AP: lower by 0.0300, at most 0.02 allowed"]),
        ({"ap_drop": 0.02, "size_ratio": 1}, ["size: 1.250 times", "mean AP: lower"]),
    ],
)
def test_bars(bars: dict[str, float], lines: list[str]) -> None:
    found = {
        "size_ratio": 1.25,
        "bench": {"ratio": {"median": 1.0}},
        "paired": {
            "rows": [{"difference": {"acc": -9.0}}, {"difference": {"acc": 0, "ap": -0.03}}]
        },
    }
    told = missed(found, **bars)
    assert len(told) == len(lines)
    assert all(line.startswith(start) for line, start in zip(told, lines, strict=True))


def test_what_could_not_be_measured_misses_its_bar() -> None:
    nothing = {"size_ratio": 1, "paired": {"rows": [{"difference": {"ap": math.nan}}]}}
    assert missed(nothing, ap_drop=0.5)
