"""A bundle against its source: the right checkpoint, the exported model, nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter import parity
from qmdd.exporter import source as source_module
from qmdd.exporter.errors import ParityError
from qmdd.exporter.export import export_bundle
from qmdd.exporter.parity import verify_bundle
from qmdd.exporter.samples import sample_images
from qmdd.models import CheckpointError
from qmdd.runtime.bundle import MANIFEST, MODEL, Bundle, manifest_bytes
from qmdd.runtime.errors import BundleError, ImageError

pytestmark = pytest.mark.usefixtures("shallow", "quick_trace")


@pytest.fixture
def bundle(tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]) -> Path:
    """A sound bundle of the latent checkpoint."""
    folder = tmp_path / "bundle"
    return export_bundle(checkpoints["latent"], folder, images=pictures, verify=False).bundle


def _rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and only it."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_bytes(manifest_bytes(manifest))


def _replace_model(bundle: Path, data: bytes) -> None:
    """Another model whose hash the manifest vouches for."""
    (bundle / MODEL).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    _rewrite(bundle, lambda manifest: manifest["files"].update({MODEL: entry}))


def test_a_sound_bundle_passes(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """With the keys that ``verify --json`` promises."""
    said: list[tuple[str, int, int]] = []
    result = verify_bundle(
        bundle,
        checkpoint=checkpoints["latent"],
        images=pictures,
        threads=1,
        report=lambda *a: said.append(a),
    )
    assert result.passed
    plain = json.loads(json.dumps(result.to_dict()))
    assert {"bundle", "arch", "bits", "target", "model_bytes", "seconds", "parity"} <= plain.keys()
    assert (plain["bundle"], plain["arch"], plain["bits"]) == (str(bundle), "resnet23", 2)
    assert plain["model_bytes"] == (bundle / MODEL).stat().st_size
    assert [(t["tier"], t["images"], t["wrong_codes"]) for t in plain["parity"]] == [
        ("strict", 2, 0),
        ("deployed", 2, 0),
    ]
    assert said == [("parity", 1, 2), ("parity", 2, 2)]


def test_tiers_can_be_chosen(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    result = verify_bundle(
        bundle, checkpoint=checkpoints["latent"], images=pictures, tiers=["strict"]
    )
    assert [tier.tier for tier in result.parity] == ["strict"]
    assert result.passed
    nothing = verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures, tiers=[])
    assert not nothing.passed
    with pytest.raises(ParityError, match="no tier 'quick'"):
        verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures, tiers=["quick"])


def test_samples_are_the_default_images(
    bundle: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = sample_images()[:1]
    monkeypatch.setattr("qmdd.exporter.samples.sample_images", lambda: few)
    result = verify_bundle(bundle, checkpoint=checkpoints["latent"], tiers=["deployed"])
    assert [tier.images for tier in result.parity] == [1]


def test_another_checkpoint_is_refused(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """The frozen form of the same detector, too: a source is one file, known by its hash."""
    with pytest.raises(ParityError, match=r"frozen\.safetensors: not the checkpoint that .*bundle"):
        verify_bundle(bundle, checkpoint=checkpoints["frozen"], images=pictures)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        verify_bundle(bundle, checkpoint=bundle / "absent.safetensors", images=pictures)


def test_the_built_in_checkpoint_is_found_by_its_hash(
    bundle: Path,
    checkpoints: dict[str, Path],
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several the right one; without it the manifest's name is in the message."""
    known = [checkpoints["frozen"], checkpoints["latent"]]
    monkeypatch.setattr(source_module, "builtin_checkpoints", lambda: known)
    assert verify_bundle(bundle, images=pictures).passed
    del known[1]
    with pytest.raises(
        ParityError, match=r"exported from latent\.safetensors, which is not built in.*--checkpoint"
    ):
        verify_bundle(bundle, images=pictures)


@pytest.mark.parametrize("source", [None, 5, {}, {"sha256": None}, {"sha256": 7}])
def test_a_manifest_without_a_source_is_refused(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path], source: object
) -> None:
    """Another tool's bundle may run; it cannot be compared with anything."""
    _rewrite(bundle, lambda manifest: manifest.update(source=source))
    with pytest.raises(ParityError, match="does not say what it was exported from"):
        verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures)
    _rewrite(bundle, lambda manifest: manifest.pop("source"))
    with pytest.raises(ParityError, match="does not say what it was exported from"):
        verify_bundle(bundle, images=pictures)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_a_changed_byte_in_the_model_is_refused(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path], place: int
) -> None:
    data = bytearray((bundle / MODEL).read_bytes())
    data[place] ^= 1
    (bundle / MODEL).write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx: its SHA-256 differs"):
        verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        verify_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"manifest\.json: missing"):
        verify_bundle(tmp_path)


def test_a_changed_model_that_the_manifest_vouches_for_misses_parity(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """Hashes say that a file arrived whole, parity says that it is right."""
    model = onnx.load(bundle / MODEL)
    (bias,) = [t for t in model.graph.initializer if t.name == "stem.conv.bias"]
    values = numpy_helper.to_array(bias) + np.float32(0.5)
    bias.raw_data = values.tobytes()
    _replace_model(bundle, model.SerializeToString())
    result = verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures)
    assert not result.passed
    assert all(tier.wrong_codes > 0 for tier in result.parity)
    assert result.to_dict()["passed"] is False


def test_a_foreign_model_is_refused(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """Sound ONNX with our input and output, but without code tensors."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels"], ["logit"], axes=[1, 2, 3], keepdims=0),
        ],
        "foreign",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
    )
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    _replace_model(bundle, foreign.SerializeToString())
    with pytest.raises(ParityError, match="no code tensors in it; qmdd did not export this model"):
        verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures)


def test_a_model_that_is_no_onnx_is_refused(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    _replace_model(bundle, b"nothing of the kind")
    with pytest.raises(ParityError, match="not a readable ONNX model"):
        verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures)


def test_an_unreadable_image_is_named(
    bundle: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    absent = bundle.parent / "absent.png"
    with pytest.raises(ImageError, match=r"absent\.png: no such file"):
        verify_bundle(bundle, checkpoint=checkpoints["latent"], images=[*pictures, absent])


def test_images_are_cropped_as_the_manifest_says(
    bundle: Path,
    checkpoints: dict[str, Path],
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The contract is the bundle's own, not this program's."""
    _rewrite(bundle, lambda manifest: manifest["input"].update(max_side=48))
    assert Bundle.open(bundle).sides["max_side"] == 48
    seen: list[tuple[int, ...]] = []
    real = parity.source_outputs

    def record(detector: Any, images: Any) -> Any:
        seen.append(images.shape)
        return real(detector, images)

    monkeypatch.setattr(parity, "source_outputs", record)
    assert verify_bundle(bundle, checkpoint=checkpoints["latent"], images=pictures).passed
    assert seen == [(1, 3, 48, 48), (1, 3, 32, 32)]
