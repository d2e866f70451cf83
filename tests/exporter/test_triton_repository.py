"""Model repositories for Triton: what they declare is what the model does; nothing is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format

from qmdd.exporter.errors import ExportError
from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import Source
from qmdd.exporter.triton import repository as repository_module
from qmdd.exporter.triton.config import config_bytes, read_config
from qmdd.exporter.triton.serve import serve_bundles, serve_export
from qmdd.exporter.triton.settings import Asked, Settings, check_name
from qmdd.runtime.bundle import GOLDEN, MANIFEST, Bundle, manifest_bytes
from qmdd.runtime.engine import EngineRecord
from qmdd.runtime.errors import BundleError
from qmdd.runtime.files import locked
from qmdd.runtime.golden import read_golden

NAME = "resnet23-w2a2"


@pytest.fixture
def config_of(triton_config: Any) -> Callable[[Path], Any]:
    """A model's ``config.pbtxt``, read by Triton's own definitions."""

    def read(model: Path) -> Any:
        text = (model / "config.pbtxt").read_text(encoding="utf-8")
        return text_format.Parse(text, triton_config.ModelConfig())

    return read


@pytest.fixture
def copy_of(tmp_path: Path, proven_bundle: Path) -> Callable[..., Path]:
    """``copy_of(name, **changes)``: the proven bundle, its manifest changed."""

    def make(name: str, **changes: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(proven_bundle, folder)
        manifest = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_bytes(manifest_bytes({**manifest, **changes}))
        return folder

    return make


@pytest.fixture
def with_engine(copy_of: Callable[..., Path]) -> Callable[..., Path]:
    """``with_engine(name, **changes of the sidecar)``: a bundle that holds an engine of 6 bytes."""

    def make(name: str, **changes: Any) -> Path:
        folder = copy_of(name, target="tensorrt")
        manifest = json.loads((folder / MANIFEST).read_bytes())
        engine = f"engine of {name}".encode()
        record = EngineRecord(
            label="built, not run",
            target="tensorrt",
            backend="tensorrt",
            version="10.3.0",
            compute_capabilities=("8.6",),
            systems=("Linux",),
            machine="x86_64",
            onnx_sha256=manifest["files"]["model.onnx"]["sha256"],
            engine_sha256=hashlib.sha256(engine).hexdigest(),
            profile={"min": (1, 3, 64, 64), "opt": (4, 3, 256, 256), "max": (16, 3, 512, 512)},
            options={},
            seconds={"build": 1.5},
            sizes={"engine": 6, "weights": 1, "activations": 2, "peak_memory": 3},
            device={},
        )
        held = {
            "model.engine": engine,
            "engine.json": dataclasses.replace(record, **changes).to_json(),
            "layers.json": b"{}",
            "build.log": b"",
        }
        (folder / "engine" / "1").mkdir(parents=True)
        for file, data in held.items():
            (folder / "engine" / "1" / file).write_bytes(data)
            entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            manifest["files"][f"engine/1/{file}"] = entry
        manifest["engine"] = {"folder": "engine/1"}
        (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
        return folder

    return make


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_declares_what_the_model_is_and_the_model_does_it(
    proven_bundle: Path, tmp_path: Path, config_of
) -> None:
    """Names, types, shapes and batch, against the file in ONNX Runtime; logits as in the proof."""
    result = serve_bundles([proven_bundle], tmp_path / "models")
    model = tmp_path / "models" / NAME
    assert (result.folder, result.version) == (model / "1", 1)
    config = config_of(model)
    assert (config.name, config.backend, config.max_batch_size) == (NAME, "onnxruntime", 8)
    session = ort.InferenceSession(str(model / "1" / "model.onnx"))
    (declared,), (real,) = config.input, session.get_inputs()
    assert (declared.name, real.name) == ("image", "image")
    assert (declared.data_type, real.type) == (2, "tensor(uint8)")  # TYPE_UINT8
    assert list(declared.dims) == [3, -1, -1]
    assert real.shape[1] == 3
    assert all(isinstance(real.shape[axis], str) for axis in (0, 2, 3))  # free
    (declared,), (real,) = config.output, session.get_outputs()
    assert (declared.name, real.name) == ("logit", "logit")
    assert (declared.data_type, real.type) == (11, "tensor(float)")  # TYPE_FP32
    # The model gives [N], Triton's clients see [N, 1].
    assert len(real.shape) == 1
    assert isinstance(real.shape[0], str)
    assert list(declared.dims) == [1]
    assert declared.HasField("reshape")
    assert list(declared.reshape.shape) == []
    golden = read_golden(model / "1" / GOLDEN)
    for image, logit in zip(golden.images, golden.logits, strict=True):
        for count in (1, config.max_batch_size):
            batch = np.repeat(image[np.newaxis], count, axis=0)
            (found,) = session.run(["logit"], {"image": batch})
            assert found.shape == (count,)
            assert np.abs(found - logit).max() <= 1e-3
    Bundle.open(model / "1")  # whole, every hash right: qmdd verify reads it there


def test_what_the_configuration_says(proven_bundle: Path, tmp_path: Path, config_of) -> None:
    asked = Asked(max_batch=4, queue_delay_us=100, device="gpu", threads=3)
    serve_bundles([proven_bundle], tmp_path / "models", name="m", asked=asked)
    config = config_of(tmp_path / "models" / "m")
    assert config.max_batch_size == 4
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert [(group.kind, group.count) for group in config.instance_group] == [(1, 1)]  # KIND_GPU
    assert config.version_policy.latest.num_versions == 1
    held = {key: value.string_value for key, value in config.parameters.items()}
    assert held["intra_op_thread_count"] == "3"
    assert held["qmdd.threshold"] == "0.5"
    assert (held["qmdd.min_side"], held["qmdd.max_side"]) == ("32", "512")
    manifest = Bundle.open(proven_bundle).manifest
    assert held["qmdd.version.1.model_sha256"] == manifest["files"]["model.onnx"]["sha256"]
    assert held["qmdd.version.1.source_sha256"] == "ab" * 32
    assert held["qmdd.version.1.parity"].startswith("0 of ")
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert dict(cuda.parameters) == {"use_tf32": "0"}


def test_one_image_at_a_time_needs_no_batcher(
    proven_bundle: Path, tmp_path: Path, config_of
) -> None:
    serve_bundles([proven_bundle], tmp_path / "models", asked=Asked(max_batch=1))
    config = config_of(tmp_path / "models" / NAME)
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


def test_further_versions_and_models(proven_bundle: Path, tmp_path: Path, config_of) -> None:
    models = tmp_path / "models"
    serve_bundles([proven_bundle], models)
    (models / NAME / "7").mkdir()  # of somebody else; never written over
    before = _contents(models)
    second = serve_bundles([proven_bundle], models, asked=Asked(max_batch=2))
    other = serve_bundles([proven_bundle], models, name="other")
    assert (second.version, other.version) == (8, 1)
    after = _contents(models)
    assert {name for name in before if after[name] != before[name]} == {f"{NAME}/config.pbtxt"}
    config = config_of(models / NAME)
    assert config.max_batch_size == 2
    proven = {key.split(".")[2] for key in config.parameters if key.startswith("qmdd.version.")}
    assert proven == {"1", "8"}
    assert {path.name for path in models.iterdir()} == {"README.md", "client.py", NAME, "other"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_configuration_changed_by_hand_stays(proven_bundle: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    serve_bundles([proven_bundle], models)
    config = models / NAME / "config.pbtxt"
    config.write_text(config.read_text() + "# tuned\n")
    tuned = config.read_bytes()
    with pytest.raises(ExportError, match="changed by hand"):
        serve_bundles([proven_bundle], models, asked=Asked(max_batch=2))
    result = serve_bundles([proven_bundle], models)
    assert (result.version, result.config_kept) == (2, True)
    assert config.read_bytes() == tuned


def test_another_contract_is_no_further_version(
    proven_bundle: Path, copy_of, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    serve_bundles([proven_bundle], models)
    before = _contents(models)
    with pytest.raises(ExportError, match=r"threshold 0\.5, not 0\.7, so .* another --name"):
        serve_bundles([copy_of("other", threshold=0.7)], models, name=NAME)
    (models / NAME / "config.pbtxt").write_text('name: "x"\n')
    with pytest.raises(ExportError, match="not written by qmdd"):
        serve_bundles([proven_bundle], models)
    (models / NAME / "config.pbtxt").write_bytes(before[f"{NAME}/config.pbtxt"])
    assert _contents(models) == before


@pytest.mark.parametrize("when", ["first", "second", "other"])
def test_a_failure_in_the_middle_leaves_it_as_it_was(
    proven_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The disk is full at the last file of the version."""
    models = tmp_path / "models"
    if when != "first":
        serve_bundles([proven_bundle], models)
    before = _contents(tmp_path)
    copy = shutil.copyfile

    def full(source: Path, place: Path) -> None:
        if Path(source).name == "model.onnx":
            raise OSError(28, "No space left on device", str(place))
        copy(source, place)

    monkeypatch.setattr(repository_module.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        serve_bundles([proven_bundle], models, name="other" if when == "other" else None)
    assert _contents(tmp_path) == before
    monkeypatch.undo()
    serve_bundles([proven_bundle], models)


def test_what_a_killed_export_left_is_no_version(proven_bundle: Path, tmp_path: Path) -> None:
    """Triton reads a number at the start of a name as a version; ours has a dot there."""
    models = tmp_path / "models"
    serve_bundles([proven_bundle], models)
    seen: list[list[str]] = []
    write = repository_module._write_version
    with pytest.MonkeyPatch.context() as patch:

        def watched(folder: Path, what: Any) -> None:
            seen.append(sorted(p.name for p in (models / NAME).iterdir() if p.is_dir()))
            write(folder, what)

        patch.setattr(repository_module, "_write_version", watched)
        serve_bundles([proven_bundle], models)
    assert len(seen[0]) == 2
    assert not any(name[:1].isdigit() for name in seen[0] if name != "1")
    (models / NAME / f".3.{'0' * 16}").mkdir()
    assert serve_bundles([proven_bundle], models).version == 3
    assert {p.name for p in (models / NAME).iterdir()} == {"1", "2", "3", "config.pbtxt"}


def test_other_folders_are_not_touched(proven_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    with pytest.raises(ExportError, match="holds other files and no model"):
        serve_bundles([proven_bundle], tmp_path / "photos")
    models = tmp_path / "empty"
    models.mkdir()
    assert serve_bundles([proven_bundle], models).version == 1
    (models / "link").symlink_to(models / NAME)
    with pytest.raises(ExportError, match="choose another --name"):
        serve_bundles([proven_bundle], models, name="link")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "-x", ".hidden", "a b", "a\n", "ä", "a" * 129]
)
def test_names_that_are_none(name: str, proven_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="model name"):
        check_name(name)
    with pytest.raises(ExportError, match="model name"):
        serve_bundles([proven_bundle], tmp_path / "models", name=name)
    assert not (tmp_path / "models").exists()


def test_only_what_is_proven_is_served(copy_of, proven_bundle: Path, tmp_path: Path) -> None:
    tiers = Bundle.open(proven_bundle).manifest["parity"]
    layers = tiers[0]["layers"]
    wrong = [{**tiers[0], "layers": [{**layers[0], "wrong": 1}, *layers[1:]]}, *tiers[1:]]
    not_a_number = [{**tiers[0], "max_abs_logit_diff": None}]
    easy = [{**tiers[0], "max_abs_logit_diff": 9.0, "logit_bar": 10.0}]
    for number, (parity, said) in enumerate(
        [
            ([], "without being verified"),
            (wrong, r"missed parity when it was exported \(strict\)"),
            (not_a_number, "missed parity"),
            (easy, "missed parity"),
            ([{**tiers[0], "layers": []}], "missed parity"),
            ([{}], "does not say how it was proven"),
            (["x"], "does not say how it was proven"),
        ]
    ):
        with pytest.raises(ExportError, match=said):
            serve_bundles([copy_of(f"b{number}", parity=parity)], tmp_path / "models")
    damaged = copy_of("damaged")
    (damaged / "model.onnx").write_bytes(b"x" * (damaged / "model.onnx").stat().st_size)
    with pytest.raises(BundleError, match="SHA-256"):
        serve_bundles([damaged], tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "openvino", "runtime": "openvino"}, "export with --target onnx or cpu"),
        ({"target": "qonnx", "runtime": "qonnx"}, "export with --target onnx or cpu"),
        ({"target": "tensorrt"}, "holds no engine; run qmdd build"),
        ({"target": "rtx"}, "TensorRT for RTX"),
    ],
)
def test_what_triton_cannot_run_exactly_is_refused(
    copy_of, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        serve_bundles([copy_of("b", **changes)], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_engine(with_engine, tmp_path: Path, config_of) -> None:
    """The profile bounds batch and sides; the plan is the engine, byte for byte."""
    serve_bundles([with_engine("b")], tmp_path / "models")
    model = tmp_path / "models" / NAME
    config = config_of(model)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 16)
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert list(config.input[0].dims) == [3, -1, -1]
    assert dict(config.cc_model_filenames) == {"8.6": "model.plan"}
    assert [group.kind for group in config.instance_group] == [1]  # KIND_GPU
    assert (model / "1" / "model.plan").read_bytes() == b"engine of b"
    held = {key: value.string_value for key, value in config.parameters.items()}
    assert (held["qmdd.min_side"], held["qmdd.max_side"]) == ("64", "512")
    assert held["qmdd.version.1.tensorrt_8.6"] == "10.3.0"
    with pytest.raises(ExportError, match="batches of at most 16, not 17"):
        serve_bundles([tmp_path / "b"], tmp_path / "models", asked=Asked(max_batch=17))
    with pytest.raises(ExportError, match="GPUs alone"):
        serve_bundles([tmp_path / "b"], tmp_path / "models", asked=Asked(device="cpu"))
    assert not (model / "2").exists()


def test_engines_for_several_gpus(with_engine, tmp_path: Path, config_of) -> None:
    profile = dict.fromkeys(("min", "opt", "max"), (1, 3, 256, 256))
    a = with_engine("a", profile=profile)
    b = with_engine("b", profile=profile, compute_capabilities=("8.9",))
    serve_bundles([a, b], tmp_path / "models")
    config = config_of(tmp_path / "models" / NAME)
    assert dict(config.cc_model_filenames) == {"8.6": "model-8.6.plan", "8.9": "model-8.9.plan"}
    assert list(config.input[0].dims) == [3, 256, 256]
    assert config.max_batch_size == 1
    folder = tmp_path / "models" / NAME / "1"
    assert (folder / "model-8.9.plan").read_bytes() == b"engine of b"
    with pytest.raises(ExportError, match=r"second engine for compute capability 8\.6"):
        serve_bundles([a, a], tmp_path / "more")
    with pytest.raises(ExportError, match="other batches and sides"):
        serve_bundles([a, with_engine("c", compute_capabilities=("9.0",))], tmp_path / "more")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backend": "tensorrt_rtx"}, "TensorRT for RTX"),
        ({"compute_capabilities": ("../../x",)}, "names no GPU"),
        ({"profile": dict.fromkeys(("min", "opt", "max"), (2, 3, 64, 64))}, "less than 2"),
        ({"profile": dict.fromkeys(("min", "opt", "max"), (1, 3, 64, 32))}, "profile is"),
    ],
)
def test_engines_that_cannot_be_served(
    with_engine, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        serve_bundles([with_engine("b", **changes)], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_checkpoint_is_proven_before_anything_is_written(
    small, pictures: list[Path], trace_once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmdd.exporter.trace.canonical_from_detector", trace_once)
    source = Source(small, "resnet23", 2, {"sha256": "ab" * 32})

    def export(folder: Path, **options: Any) -> Any:
        return export_bundle(source, folder, images=pictures, **options)

    def flipped(folder: Path) -> Any:
        result = export(folder)
        result.parity[0].flipped_verdicts = 1
        return result

    with pytest.raises(ExportError, match="nothing was written"):
        serve_export(flipped, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    result = serve_export(export, tmp_path / "models", name="m")
    assert result.export is not None
    assert result.export.bundle == result.folder == tmp_path / "models" / "m" / "1"
    assert json.loads(json.dumps(result.to_dict()))["export"]["passed"] is True


SETTINGS = Settings(
    name='quo"te',
    backend="onnxruntime",
    sides={"min_side": 32, "multiple": 2, "max_side": 512},
    threshold=0.5,
    arch="back\\slash\nline ä",
    bits=2,
    max_batch=8,
    best_batch=8,
    queue_delay_us=0,
    device="cpu",
    threads=0,
    plans={},
    versions={"1": {"parity": "0 of 1"}},
)


def test_texts_are_quoted_and_read_back(tmp_path: Path, config_of) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(config_bytes(SETTINGS))
    config = config_of(tmp_path)
    assert config.name == SETTINGS.name
    assert config.parameters["qmdd.arch"].string_value == SETTINGS.arch
    assert read_config(path) == (SETTINGS, False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# qmdd \n",
        b"# qmdd []\n",
        b'# qmdd {"schema": 1, "sha256": "", "settings": {}}\n',
        b"# qmdd " + b"[" * 100_000 + b"\n",
        b"# qmdd " + b" " * (1 << 20),
        config_bytes(SETTINGS).replace(b'"threads": 0', b'"threads": "0"', 1),
        config_bytes(SETTINGS).replace(b'"max_side": 512', b'"max_side": null', 1),
    ],
)
def test_configurations_that_are_not_ours(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(data)
    with pytest.raises(ExportError, match="not written by qmdd"):
        read_config(path)


@pytest.mark.parametrize("name", [NAME, "second"])
@pytest.mark.parametrize("empty", [False, True])
def test_two_first_exports_at_once(
    proven_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: bool, name: str
) -> None:
    """The one that comes second finds the other's repository, and leaves it."""
    models = tmp_path / "models"
    if empty:
        models.mkdir()
    write = repository_module._write_model

    def slow(folder: Path, what: Any) -> None:
        monkeypatch.undo()
        serve_bundles([proven_bundle], models)
        write(folder, what)

    monkeypatch.setattr(repository_module, "_write_model", slow)
    with pytest.raises(ExportError, match="was put there meanwhile"):
        serve_bundles([proven_bundle], models, name=name)
    assert {path.name for path in models.iterdir()} == {"README.md", "client.py", NAME}
    assert serve_bundles([proven_bundle], models, name=name).version == 1 + (name == NAME)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="is a file"):
        serve_bundles([proven_bundle], tmp_path / "file")


def test_two_exports_at_once(proven_bundle: Path, tmp_path: Path) -> None:
    serve_bundles([proven_bundle], tmp_path / "models")
    with (
        locked(tmp_path / "models"),
        pytest.raises(ExportError, match="another export is writing"),
    ):
        serve_bundles([proven_bundle], tmp_path / "models")
    assert os.listdir(tmp_path / "models" / NAME).count("2") == 0


@pytest.mark.parametrize(
    "change",
    [
        {"versions": {"1": 7}},
        {"versions": {"1": {"parity": 0}}},
        {"plans": {"8.6": ["model.plan"]}},
        {"arch": "\ud800"},
    ],
)
def test_settings_that_no_configuration_could_be_made_of(
    tmp_path: Path, change: dict[str, object]
) -> None:
    """Only the configuration's maker writes the first line; whoever else did is refused."""
    path = tmp_path / "config.pbtxt"
    path.write_bytes(config_bytes(SETTINGS))
    assert read_config(path).settings == SETTINGS
    first, _, rest = path.read_bytes().partition(b"\n")
    head = json.loads(first[7:])
    head["settings"] |= change
    path.write_bytes(b"# qmdd " + json.dumps(head).encode() + b"\n" + rest)
    with pytest.raises(ExportError, match="not written by qmdd"):
        read_config(path)


@pytest.mark.parametrize("copied", [0, 1])
def test_a_bundle_that_is_replaced_while_it_is_copied_is_no_version(
    copy_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: int
) -> None:
    bundle, other = copy_of("first"), copy_of("second", threshold=0.25)
    (other / GOLDEN).write_bytes(b"another")
    manifest = json.loads((other / MANIFEST).read_bytes())
    digest = hashlib.sha256(b"another").hexdigest()
    manifest["files"][GOLDEN] = {"sha256": digest, "bytes": len(b"another")}
    (other / MANIFEST).write_bytes(manifest_bytes(manifest))
    real, calls = shutil.copyfile, []

    def copyfile(source: Path, target: Path) -> None:
        if len(calls) == copied:
            os.rename(bundle, tmp_path / "gone")
            os.rename(other, bundle)
        calls.append(source)
        real(source, target)

    monkeypatch.setattr(repository_module.shutil, "copyfile", copyfile)
    with pytest.raises((ExportError, BundleError), match=r"replaced meanwhile|manifest"):
        serve_bundles([bundle], tmp_path / "models", name=NAME)
    assert not (tmp_path / "models").exists()
