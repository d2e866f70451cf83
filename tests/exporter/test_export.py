"""Checkpoint to bundle: whole and true, or not at all."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from PIL import Image

from qmdd.exporter import export
from qmdd.exporter.errors import ExportError
from qmdd.exporter.export import (
    CONTRACT,
    GOLDEN_IMAGES,
    GOLDEN_SIDE,
    ExportResult,
    export_bundle,
    sizes,
)
from qmdd.exporter.parity import compare, source_outputs
from qmdd.exporter.plan import planned_layers
from qmdd.exporter.samples import sample_images
from qmdd.exporter.source import source_from_checkpoint
from qmdd.models import CheckpointError, Detector, build_detector, quantised_chains
from qmdd.models.checkpoint import Checkpoint, checkpoint_bytes, freeze, is_frozen
from qmdd.models.conv import QuantConv2d
from qmdd.runtime import detector as runtime_detector
from qmdd.runtime.bundle import GOLDEN, MANIFEST, MODEL, SCHEMA, Bundle
from qmdd.runtime.errors import ImageError
from qmdd.runtime.files import sha256_of
from qmdd.runtime.golden import read_golden
from qmdd.runtime.images import load_rgb
from qmdd.runtime.parity import FLOAT_LOGIT_BAR, TierResult
from qmdd.runtime.preprocess import prepare
from qmdd.runtime.probes import PROBES

pytestmark = pytest.mark.usefixtures("shallow", "quick_trace")

NOT_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
#: All that a manifest holds: no time of day, which would make two exports differ.
TOP_KEYS = {
    "schema", "qmdd", "arch", "bits", "target", "opset", "weights", "source", "input", "output",
    "threshold", "files", "tools", "tables", "passes", "notes", "size", "nodes", "parity",
    "plan", "precision", "runtime",
}  # fmt: skip


def _tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below ``folder``, hidden ones too, with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def _save(detector: Detector, path: Path) -> Path:
    path.write_bytes(checkpoint_bytes(detector))
    return path


@pytest.fixture
def bundle(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> tuple[Path, ExportResult]:
    """A verified bundle of the small detector."""
    result = export_bundle(checkpoints["latent"], tmp_path / "bundle", images=pictures)
    return result.bundle, result


def test_a_bundle_holds_what_its_manifest_says(
    bundle: tuple[Path, ExportResult], checkpoints: dict[str, Path], small: Detector
) -> None:
    """Keys, hashes, sizes, counts, tables: each compared with the thing itself."""
    path, result = bundle
    assert result.passed
    assert sorted(_tree(path)) == [MANIFEST, MODEL, "parity", GOLDEN, PROBES[MODEL]]
    opened = Bundle.open(path)
    manifest = opened.manifest
    assert set(manifest) == TOP_KEYS
    assert manifest["schema"] == SCHEMA
    assert (opened.arch, opened.bits, opened.target) == ("resnet23", 2, "onnx")
    assert (manifest["opset"], manifest["weights"], manifest["threshold"]) == (21, "own", 0.5)
    assert manifest["input"] == CONTRACT
    assert manifest["output"] == {"name": "logit", "dtype": "float32", "activation": "sigmoid"}
    assert manifest["source"] == {
        "checkpoint": "latent.safetensors",
        "sha256": sha256_of(checkpoints["latent"]),
        "format": "qmdd-latent",
        "frozen": False,
        "config": json.loads(small.config.to_json()),
    }
    assert manifest["files"] == {
        name: {"sha256": sha256_of(path / name), "bytes": (path / name).stat().st_size}
        for name in (MODEL, GOLDEN, PROBES[MODEL])
    }
    assert manifest["tools"]["torch"] == torch.__version__.split("+")[0]
    assert manifest["tools"]["onnx"] == onnx.__version__
    assert manifest["tools"]["onnxruntime"] == ort.__version__
    assert manifest["tools"]["numpy"] == np.__version__
    assert set(manifest["tools"]) == {"python", "torch", "onnx", "onnxruntime", "numpy"}

    model = onnx.load(path / MODEL)
    found: dict[str, int] = {}
    for node in model.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    assert manifest["nodes"] == found
    layers = [name for name, _ in quantised_chains(small)]
    assert [entry["layer"] for entry in manifest["tables"]] == layers
    for entry, (_, layer) in zip(manifest["tables"], quantised_chains(small), strict=True):
        assert entry["channels"] == layer.shift_in.bias.numel()
        assert (entry["thresholds"], entry["folded"], entry["reason"]) == (3, True, "")
    assert [entry["pass"] for entry in manifest["passes"]] == [
        "fold_stem", "pool_head", "fold_chain", "pack_weights", "lower_thresholds",
    ]  # fmt: skip
    assert manifest["notes"] == []
    assert manifest["precision"] == "int8"
    assert manifest["plan"] == json.loads(json.dumps([p.to_dict() for p in planned_layers(model)]))
    assert manifest["size"] == sizes(small, (path / MODEL).stat().st_size)
    assert manifest["parity"] == result.to_dict()["parity"]


def test_the_result_says_what_the_command_prints(bundle: tuple[Path, ExportResult]) -> None:
    """Plain JSON data with the keys that ``export --json`` promises."""
    path, result = bundle
    plain = json.loads(json.dumps(result.to_dict()))
    assert {
        "bundle", "arch", "bits", "target", "model_bytes", "seconds", "parity", "size", "nodes",
        "explain",
    } <= plain.keys()  # fmt: skip
    assert plain["bundle"] == str(path)
    assert plain["model_bytes"] == (path / MODEL).stat().st_size
    assert plain["seconds"] > 0
    assert [tier["tier"] for tier in plain["parity"]] == ["strict", "deployed"]
    for tier in plain["parity"]:
        assert set(tier) == {
            "tier", "images", "codes_compared", "wrong_codes", "max_abs_logit_diff",
            "flipped_verdicts", "layers", "logit_bar", "runtime", "fallbacks", "code_budget",
        }  # fmt: skip
        assert (tier["runtime"], tier["fallbacks"]) == ("onnxruntime", [])
        assert (tier["images"], tier["wrong_codes"], tier["flipped_verdicts"]) == (2, 0, 0)
        assert tier["codes_compared"] == sum(layer["codes"] for layer in tier["layers"])
        assert all(set(layer) == {"layer", "codes", "wrong"} for layer in tier["layers"])
    assert plain["explain"][0] == "fold_stem: applied 1 times"


def test_the_golden_file_is_the_sources_answer(
    bundle: tuple[Path, ExportResult], small: Detector, pictures: list[Path]
) -> None:
    """Images as the model takes them, codes and logits of the PyTorch source, by layer."""
    golden = read_golden(bundle[0] / GOLDEN)
    assert len(golden.images) == GOLDEN_IMAGES
    for index, file in enumerate(pictures):
        image = prepare(load_rgb(file), min_side=32, multiple=2, max_side=GOLDEN_SIDE)
        np.testing.assert_array_equal(golden.images[index], image)
        logits, codes = source_outputs(small, image[None])
        assert golden.logits[index] == logits[0]
        assert list(golden.codes[index]) == list(codes)
        for name, want in codes.items():
            np.testing.assert_array_equal(golden.codes[index][name], want.reshape(-1))


def test_golden_images_stay_small(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    """Codes of a large image at 8 bits would pass what a golden file may hold."""
    image = np.random.default_rng(0).integers(0, 256, (530, 300, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "large.png")
    result = export_bundle(
        checkpoints["latent"], tmp_path / "b", images=[tmp_path / "large.png"], verify=False
    )
    golden = read_golden(result.bundle / GOLDEN)
    assert [image.shape for image in golden.images] == [(3, GOLDEN_SIDE, GOLDEN_SIDE)]


def test_the_bundle_scores_images_without_torch(
    bundle: tuple[Path, ExportResult], small: Detector, pictures: list[Path]
) -> None:
    """What the device computes is the source's sigmoid."""
    detector = runtime_detector.Detector.open(bundle[0], threads=1)
    for verdict, file in zip(detector.detect(pictures), pictures, strict=True):
        image = prepare(load_rgb(file), min_side=32, multiple=2, max_side=512)
        logit = float(source_outputs(small, image[None])[0][0])
        assert verdict.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)


def test_the_samples_are_the_default_images(
    tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and a later one are golden: a real photo and a fake."""
    few = [sample_images()[0], sample_images()[-1]]
    monkeypatch.setattr(export, "sample_images", lambda: few)
    result = export_bundle(checkpoints["frozen"], tmp_path / "bundle")
    assert [tier.images for tier in result.parity] == [2, 2]
    assert result.passed


def test_samples_exist_in_both_classes() -> None:
    names = [path.name for path in sample_images()]
    assert names == sorted(names)
    assert {name.split("_")[0] for name in names} == {"real", "fake"}
    assert (sample_images()[0].parent / "CREDITS.md").is_file()


def test_two_exports_of_one_file_are_the_same_bytes(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """The whole folder, manifest and parity included."""
    for name in ("a", "b"):
        export_bundle(checkpoints["latent"], tmp_path / name, images=pictures)
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")


def test_sizes_do_not_depend_on_the_checkpoints_form(
    make_detector: Callable[..., Detector],
) -> None:
    """Full precision means the twin: its parameters, no quantizers'."""
    for options in ({"weight": "lsq"}, {"activation": "lsq", "cqb": False}, {"bits": 8}):
        detector = make_detector(**{"bits": 3, **options})
        twin = build_detector("resnet23", 32, cqb=detector.config.cqb, width=0.125)
        latent = sizes(detector, 1000)
        assert latent["fp32_bytes"] == 4 * sum(p.numel() for p in twin.parameters())
        weights = [conv.latent() for conv in twin.modules() if isinstance(conv, QuantConv2d)]
        assert latent["weights"] == sum(weight.numel() for weight in weights)
        stem, *others = (weight.numel() for weight in weights)
        assert latent["weight_bits"] == 8 * stem + detector.config.bits * sum(others)
        assert latent["model_bytes"] == 1000
        assert sizes(freeze(copy.deepcopy(detector)), 1000) == latent


@pytest.mark.parametrize("arch", ["resnet23", "resnet50"])
def test_multiply_adds_are_those_of_a_forward_pass(
    make_detector: Callable[..., Detector], arch: str
) -> None:
    """Counted from the shapes that flow through the twin at 256x256 pixels."""
    twin = make_detector(arch, 32)
    total = twin.head.fc.in_features
    counted: list[int] = []

    def count(conv: QuantConv2d, _: object, output: torch.Tensor) -> None:
        counted.append(conv.latent().numel() * output.shape[2] * output.shape[3])

    for module in twin.modules():
        if isinstance(module, QuantConv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        twin(torch.zeros(1, 3, 256, 256))
    assert sizes(twin, 0)["multiply_adds"] == total + sum(counted)


def test_chains_left_explicit_are_explained(
    tmp_path: Path, make_detector: Callable[..., Detector], pictures: list[Path]
) -> None:
    """In the manifest by layer, with the reason; in ``--explain`` as a line."""
    detector = make_detector(seed=6)
    with torch.no_grad():
        dict(quantised_chains(detector))["stages.1.0.conv2"].prelu.weight[:2] = -0.1
    source = _save(detector, tmp_path / "negative.safetensors")
    result = export_bundle(source, tmp_path / "bundle", images=pictures)
    assert result.passed
    entries = {e["layer"]: e for e in Bundle.open(result.bundle).manifest["tables"]}
    left = [layer for layer, entry in entries.items() if not entry["folded"]]
    assert left == ["stages.1.0.conv2"]
    reason = entries["stages.1.0.conv2"]["reason"]
    assert reason.startswith("2 of 16 PReLU slopes are negative")
    assert f"fold_chain: stages.1.0.conv2: {reason}" in result.explain


@pytest.mark.parametrize("bits", [3, 8])
def test_tables_are_described_at_every_width(
    tmp_path: Path, make_detector: Callable[..., Detector], pictures: list[Path], bits: int
) -> None:
    """Thresholds are counted also where they are searched, not compared one by one."""
    detector = make_detector(bits=bits)
    source = _save(detector, tmp_path / "source.safetensors")
    result = export_bundle(source, tmp_path / "bundle", images=pictures, verify=False)
    for entry, (name, layer) in zip(
        Bundle.open(result.bundle).manifest["tables"], quantised_chains(detector), strict=True
    ):
        assert entry["layer"] == name
        assert entry["channels"] == layer.shift_in.bias.numel()
        assert (entry["thresholds"], entry["folded"]) == (2**bits - 1, True)


def test_the_canonical_target_makes_a_verified_bundle(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path], small: Detector
) -> None:
    """Chains are explicit there, and the manifest says so."""
    result = export_bundle(
        checkpoints["latent"], tmp_path / "bundle", images=pictures, target="canonical"
    )
    assert result.passed
    manifest = Bundle.open(result.bundle).manifest
    assert manifest["target"] == "canonical"
    assert [e["layer"] for e in manifest["tables"]] == [n for n, _ in quantised_chains(small)]
    for entry in manifest["tables"]:
        assert (entry["channels"], entry["thresholds"], entry["folded"]) == (1, 3, False)
        assert entry["reason"]


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "opset", "kind"),
    [
        ({}, 21, TensorProto.UINT8),
        ({"opset": 17}, 17, TensorProto.UINT8),
        ({"opset": 25}, 25, TensorProto.UINT2),
        ({"weights": "int2"}, 25, TensorProto.UINT2),
        ({"weights": "int4"}, 21, TensorProto.UINT4),
        ({"weights": "int8", "opset": 19}, 19, TensorProto.INT8),
    ],
)
def test_weights_and_opset_are_as_asked(
    tmp_path: Path,
    checkpoints: dict[str, Path],
    pictures: list[Path],
    options: dict[str, Any],
    opset: int,
    kind: int,
) -> None:
    """The manifest and the file agree on what was written."""
    result = export_bundle(checkpoints["latent"], tmp_path / "b", images=pictures, **options)
    assert result.passed
    manifest = Bundle.open(result.bundle).manifest
    assert (manifest["opset"], manifest["weights"]) == (opset, options.get("weights", "own"))
    model = onnx.load(result.bundle / MODEL)
    assert [item.version for item in model.opset_import] == [opset]
    largest = max(
        (t for t in model.graph.initializer if t.name.startswith("stages.3.0.conv2.conv.")),
        key=lambda tensor: math.prod(tensor.dims),
    )
    assert largest.data_type == kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int2", "opset": 21}, "weights as int2 need opset 25, not 21"),
        ({"weights": "int4", "opset": 20}, "weights as int4 need opset 21, not 20"),
        ({"weights": "int16"}, "no weight storage 'int16'; there are own, int2, int4, int8"),
        ({"opset": 16}, "target onnx is written at opset 17 to 25, not 16"),
        ({"opset": 26}, "target onnx is written at opset 17 to 25, not 26"),
        ({"target": "canonical", "opset": 17}, "target canonical is written at opset 21 to 25"),
        ({"target": "canonical", "weights": "int4"}, "canonical keeps weights as they are traced"),
        ({"target": "jetson"}, "no target 'jetson'; did you mean jetson-nano?"),
    ],
)
def test_contradictions_are_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """Before even the checkpoint is looked at."""
    with pytest.raises(ExportError, match=message):
        export_bundle(tmp_path / "absent.safetensors", tmp_path / "bundle", **options)
    assert _tree(tmp_path) == {}


def test_weights_that_do_not_fit_the_storage_are_refused(
    tmp_path: Path, make_detector: Callable[..., Detector], pictures: list[Path]
) -> None:
    source = _save(make_detector(bits=4), tmp_path / "four.safetensors")
    with pytest.raises(ExportError, match=r"4-bit weights do not fit int2; choose a wider --weig"):
        export_bundle(source, tmp_path / "bundle", images=pictures, weights="int2")
    assert sorted(_tree(tmp_path)) == ["four.safetensors"]


@pytest.mark.parametrize("representation", ["npr", "rgb"])
def test_full_precision_is_exported_and_compared_by_its_logits(
    tmp_path: Path,
    make_detector: Callable[..., Detector],
    pictures: list[Path],
    representation: str,
) -> None:
    """No codes to compare; sums in each runtime's own order; detected as any other bundle."""
    twin = make_detector(bits=32, representation=representation)
    source = _save(twin, tmp_path / "twin.safetensors")
    result = export_bundle(source, tmp_path / "bundle", images=pictures)
    assert result.passed
    for tier in result.parity:
        assert (tier.images, tier.codes_compared, tier.layers) == (2, 0, [])
        assert tier.logit_bar == FLOAT_LOGIT_BAR
    assert not {"QuantizeLinear", "DequantizeLinear"} & result.nodes.keys()
    detector = runtime_detector.Detector.open(tmp_path / "bundle", threads=1)
    for verdict in detector.detect(pictures):
        pixels = torch.from_numpy(prepare(load_rgb(verdict.path), **detector.bundle.sides))[None]
        with torch.no_grad():
            want = float(torch.sigmoid(twin(pixels)))
        assert verdict.score == pytest.approx(want, rel=0, abs=FLOAT_LOGIT_BAR)


def test_a_full_precision_model_that_differs_is_found(
    tmp_path: Path, make_detector: Callable[..., Detector], pictures: list[Path]
) -> None:
    """Another network's weights behind the same graph: the logits tell."""
    bundle = tmp_path / "bundle"
    export_bundle(_save(make_detector(bits=32), tmp_path / "a"), bundle, images=pictures)
    tiers = compare(make_detector(bits=32, seed=1), bundle / MODEL, pictures, CONTRACT, threads=1)
    assert not any(tier.passed for tier in tiers)


def test_a_model_that_no_runtime_of_ours_would_read_is_not_written(
    tmp_path: Path, make_detector: Callable[..., Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_from_checkpoint(_save(make_detector(bits=32), tmp_path / "twin"))
    monkeypatch.setattr(export, "MAX_MODEL_BYTES", 1 << 14)
    with pytest.raises(ExportError, match=r"the model takes 0 MiB, and none over 0 MiB is read"):
        export_bundle(source, tmp_path / "bundle", verify=False)
    assert sorted(_tree(tmp_path)) == ["twin"]


def test_full_precision_has_no_integer_weights_to_store(
    tmp_path: Path, make_detector: Callable[..., Detector]
) -> None:
    source = source_from_checkpoint(_save(make_detector(bits=32), tmp_path / "twin"))
    with pytest.raises(ExportError, match="has no integer weights to store as int8"):
        export_bundle(source, tmp_path / "bundle", weights="int8")
    assert sorted(_tree(tmp_path)) == ["twin"]


@pytest.mark.parametrize("kind", ["missing", "text", "truncated"])
def test_a_checkpoint_that_is_none_is_refused(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path], kind: str
) -> None:
    source = tmp_path / "source.safetensors"
    if kind == "text":
        source.write_text("not a checkpoint")
    if kind == "truncated":
        source.write_bytes(checkpoints["latent"].read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"source\.safetensors"):
        export_bundle(source, tmp_path / "bundle", images=pictures)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "small"])
@pytest.mark.parametrize("verify", [True, False])
def test_an_unusable_image_leaves_nothing(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path], kind: str, verify: bool
) -> None:
    """Golden results are taken from the images even where parity is left out."""
    image = tmp_path / "image.png"
    if kind == "text":
        image.write_text("not an image")
    if kind == "truncated":
        image.write_bytes(pictures[0].read_bytes()[:300])
    if kind == "small":
        Image.new("RGB", (40, 31)).save(image)
    before = _tree(tmp_path)
    with pytest.raises(ImageError):
        export_bundle(checkpoints["latent"], tmp_path / "out" / "b", images=[image], verify=verify)
    assert _tree(tmp_path) == before


# --- output -----------------------------------------------------------------------------------


def _old_bundle(folder: Path) -> Path:
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")
    (folder / "other").write_text("old")
    return folder


def test_an_existing_output_is_refused_before_any_work(
    tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a foreign folder, a bundle without ``force``, a link: none is touched."""
    monkeypatch.setattr(export, "source_from_checkpoint", lambda _: pytest.fail("work was begun"))
    file = tmp_path / "file"
    file.write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    old = _old_bundle(tmp_path / "old")
    link = tmp_path / "link"
    link.symlink_to(old)
    before = _tree(tmp_path)
    for output, force, message in (
        (file, False, "file exists and is not a folder"),
        (file, True, "file exists and is not a folder"),
        (foreign, False, "foreign exists; choose another --output or add --force"),
        (foreign, True, r"foreign holds other files \(there is no manifest.json"),
        (old, False, "old exists; choose another --output or add --force"),
        (link, True, "link exists and is not a folder"),
    ):
        with pytest.raises(ExportError, match=message):
            export_bundle(checkpoints["latent"], output, force=force)
    assert _tree(tmp_path) == before


def test_force_replaces_a_bundle_and_an_empty_folder(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """Nothing of the old one is left, beside it neither."""
    (tmp_path / "empty").mkdir()
    for output in (_old_bundle(tmp_path / "old"), tmp_path / "empty"):
        export_bundle(checkpoints["latent"], output, images=pictures, verify=False, force=True)
        Bundle.open(output)
        assert not (output / "other").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "old"]


def test_a_folder_for_the_bundle_is_made(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    output = tmp_path / "several" / "folders" / "bundle"
    export_bundle(checkpoints["latent"], output, images=pictures, verify=False)
    Bundle.open(output)


def test_a_parent_that_is_a_file_is_refused(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="a part of this path is a file"):
        export_bundle(checkpoints["latent"], tmp_path / "file" / "bundle", images=pictures)
    assert _tree(tmp_path) == {"file": b"mine"}


@NOT_ROOT
def test_a_parent_that_cannot_be_written_is_refused(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    parent = tmp_path / "locked"
    parent.mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        export_bundle(checkpoints["latent"], parent / "bundle", images=pictures)
    assert _tree(tmp_path) == {"locked": None}


@pytest.mark.parametrize("stage", ["loading", "tracing", "writing", "parity"])
@pytest.mark.parametrize("existing", [True, False])
def test_an_interruption_leaves_what_was_there(
    tmp_path: Path,
    checkpoints: dict[str, Path],
    pictures: list[Path],
    stage: str,
    existing: bool,
) -> None:
    """Ctrl-C at any stage: no half bundle, no hidden folder, the old bundle untouched."""
    output = tmp_path / "new" / "bundle"
    if existing:
        output.parent.mkdir()
        _old_bundle(output)
    before = _tree(tmp_path)
    said: list[str] = []

    def report(what: str, _done: int, _total: int) -> None:
        said.append(what)
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(checkpoints["latent"], output, images=pictures, force=existing, report=report)
    assert said[-1] == stage
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("file", [MODEL, GOLDEN, MANIFEST])
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: dict[str, Path],
    pictures: list[Path],
    file: str,
    existing: bool,
) -> None:
    """No space at whichever file: the error goes up, nothing stays behind."""
    output = tmp_path / "new" / "bundle"
    if existing:
        output.parent.mkdir()
        _old_bundle(output)
    before = _tree(tmp_path)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == Path(file).name:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    if file == GOLDEN:
        monkeypatch.setattr(export, "write_golden", lambda path, _: full(path, b"half of it"))
    with pytest.raises(OSError, match="No space left on device"):
        export_bundle(checkpoints["latent"], output, images=pictures, force=existing, verify=False)
    assert _tree(tmp_path) == before


def test_progress_names_the_stages_in_order(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    said: list[tuple[str, int, int]] = []
    export_bundle(
        checkpoints["latent"], tmp_path / "b", images=pictures, report=lambda *a: said.append(a)
    )
    names = [what for what, _, _ in said]
    assert names == [
        "loading", "freezing", "tracing", "lowering", "writing", "parity", "parity", "done",
    ]  # fmt: skip
    assert all(0 <= done <= total for _, done, total in said)


# --- parity in the export ---------------------------------------------------------------------


def test_the_source_of_parity_is_the_checkpoints_own_model(
    tmp_path: Path,
    checkpoints: dict[str, Path],
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Latent weights and their quantizers, not what the export froze them to."""
    seen: list[bool] = []

    def compare(detector: Detector, *_: object, **__: object) -> list[TierResult]:
        seen.append(is_frozen(detector))
        return []

    monkeypatch.setattr(export, "compare", compare)
    for form in ("latent", "frozen"):
        export_bundle(checkpoints[form], tmp_path / form, images=pictures)
    assert seen == [False, True]


def test_parity_may_be_left_out(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    result = export_bundle(checkpoints["latent"], tmp_path / "b", images=pictures, verify=False)
    assert (result.parity, result.passed) == ([], True)
    assert Bundle.open(result.bundle).manifest["parity"] == []


@pytest.mark.parametrize("difference", [1e-3, math.nan, math.inf])
def test_a_bundle_that_misses_parity_is_kept_and_says_so(
    tmp_path: Path,
    checkpoints: dict[str, Path],
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    difference: float,
) -> None:
    """For whoever looks for the cause; what is no number is null in the manifest."""
    tier = TierResult("strict", 2, difference, 0)
    monkeypatch.setattr(export, "compare", lambda *_, **__: [tier])
    result = export_bundle(checkpoints["latent"], tmp_path / "bundle", images=pictures)
    assert not result.passed
    assert result.to_dict()["passed"] is False
    (written,) = Bundle.open(result.bundle).manifest["parity"]
    expected = difference if math.isfinite(difference) else None
    assert written["max_abs_logit_diff"] == expected


def test_exporting_leaves_the_checkpoint_alone(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    source = tmp_path / "copy.safetensors"
    shutil.copyfile(checkpoints["latent"], source)
    before = source.read_bytes()
    export_bundle(source, tmp_path / "bundle", images=pictures, verify=False)
    assert source.read_bytes() == before


def test_a_checkpoint_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest must not name the hash of another file than the one that was exported."""
    digests = iter("ab")
    monkeypatch.setattr(Checkpoint, "sha256", lambda _: next(digests))
    with pytest.raises(ExportError, match="changed while it was read"):
        export_bundle(next(iter(checkpoints.values())), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
