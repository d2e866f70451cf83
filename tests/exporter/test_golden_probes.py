"""What an export leaves for the device: probes that make the bundle's models the probed ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from qmdd.exporter.export import export_bundle
from qmdd.exporter.parity import verify_bundle
from qmdd.exporter.probes import code_tensors, with_probes
from qmdd.models import Detector
from qmdd.models.checkpoint import checkpoint_bytes
from qmdd.runtime import Bundle
from qmdd.runtime.bundle import MANIFEST, MODEL, NATIVE_MODEL, manifest_bytes
from qmdd.runtime.golden_check import check_golden
from qmdd.runtime.native import library_path
from qmdd.runtime.probes import MAX_BYTES, PROBES, probed_model
from qmdd.runtime.sessions import OPENVINO

pytestmark = pytest.mark.usefixtures("shallow", "quick_trace")

MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]) -> MakeBundle:
    """``make(target)``: a bundle of the small detector, not compared with anything yet."""

    def make(target: str, checkpoint: Path = checkpoints["latent"]) -> Path:
        folder = tmp_path / target
        return export_bundle(
            checkpoint, folder, target=target, images=pictures, verify=False
        ).bundle

    return make


@pytest.mark.parametrize("target", ["onnx", "cpu", "orin-nano"])
def test_a_bundles_probes_make_the_model_that_parity_runs(
    make_bundle: MakeBundle, target: str
) -> None:
    """Listed with their hashes, small, and the exporter's own probed model to the byte."""
    bundle = Bundle.open(make_bundle(target))
    models = [MODEL] + [NATIVE_MODEL] * (target == "cpu")
    for name in models:
        assert bundle.manifest["files"][PROBES[name]]["bytes"] < MAX_BYTES / 100
        data = probed_model(bundle, name)
        assert data == with_probes(bundle.path / name).model
        assert data is not None
        probed, plain = onnx.load_from_string(data), onnx.load(bundle.path / name)
        added = [value.name for value in probed.graph.output][len(plain.graph.output) :]
        assert added == list(code_tensors(plain))
        assert len(added) == 8


@pytest.mark.parametrize("target", ["onnx", "cpu"])
def test_a_sound_bundle_agrees_with_its_golden_results(
    make_bundle: MakeBundle, target: str
) -> None:
    """Channels first and last, portable and by the native operators."""
    result = check_golden(make_bundle(target), threads=1)
    native = target == "cpu" and library_path() is not None
    assert [tier.tier for tier in result.parity] == ["strict", "deployed"] + ["native"] * native
    assert result.passed
    assert len({tier.codes_compared for tier in result.parity}) == 1


def test_golden_results_find_what_the_source_finds(
    make_bundle: MakeBundle, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """On the same images, code by code, where not all may be right: the cpu form in OpenVINO.

    It keeps channels-last codes, which OpenVINO must say, too.
    """
    pytest.importorskip("openvino", reason="pip install openvino")
    asked: dict[str, Any] = {"tiers": ["deployed"], "runtime": OPENVINO, "threads": 1}
    bundle, latent = make_bundle("cpu"), checkpoints["latent"]
    golden = check_golden(bundle, **asked)
    source = verify_bundle(bundle, checkpoint=latent, images=pictures, **asked)
    assert golden.parity[0].to_dict() == source.parity[0].to_dict()
    assert golden.parity[0].wrong_codes < golden.parity[0].codes_compared // 2


def test_a_changed_weight_is_found_behind_its_layer(make_bundle: MakeBundle) -> None:
    """The hash vouches for the file: only the codes tell."""
    folder = make_bundle("onnx")
    model = onnx.load(folder / MODEL)
    (bias,) = [t for t in model.graph.initializer if t.name == "stages.1.0.conv1.conv.multiplier"]
    bias.raw_data = (numpy_helper.to_array(bias) * 2).tobytes()
    data = model.SerializeToString()
    (folder / MODEL).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text())
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"][MODEL] = entry
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
    result = check_golden(folder, threads=1)
    assert not result.passed
    for tier in result.parity:
        wrong = [layer.layer for layer in tier.layers if layer.wrong]
        assert wrong[0] == "stages.1.0.conv2"


def test_full_precision_and_fpga_flows_have_no_probes(
    make_bundle: MakeBundle, make_detector: Callable[..., Detector], tmp_path: Path
) -> None:
    full = tmp_path / "full.safetensors"
    full.write_bytes(checkpoint_bytes(make_detector(bits=32)))
    bundle = make_bundle("onnx", full)
    assert not set(PROBES.values()) & set(Bundle.open(bundle).manifest["files"])
    result = check_golden(bundle, threads=1)
    assert result.passed
    assert all(tier.images == 2 and not tier.layers for tier in result.parity)
    assert PROBES[MODEL] not in Bundle.open(make_bundle("qonnx")).manifest["files"]
