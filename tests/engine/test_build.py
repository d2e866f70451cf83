"""Real builds by TensorRT-RTX: what is added to a bundle, and what is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qmdd.exporter.engine.build import BuildResult, build_engine, default_memory_limit
from qmdd.exporter.engine.header import version_in_header
from qmdd.exporter.errors import BuildError, ExportError
from qmdd.exporter.targets import find_target
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.engine import engine_path, read_record
from qmdd.runtime.errors import BundleError, EngineError

FAULTS = ("axis", "between", "per_channel", "concat")


def test_engine_becomes_a_part_of_the_bundle(rtx, make_bundle, contents) -> None:
    folder = make_bundle()
    before = contents(folder)
    result = build_engine(folder)
    bundle = Bundle.open(folder)  # every hash is checked
    assert result.engine == engine_path(bundle)
    added = {Path(name).name for name in contents(folder).keys() - before.keys()}
    assert added == {"model.engine", "engine.json", "layers.json", "build.log"}
    assert contents(folder)["model.onnx"] == before["model.onnx"]
    assert {Path(name).name for name in bundle.manifest["files"]} == added | {"model.onnx"}
    record = read_record(bundle)
    assert record == result.record
    assert (record.label, record.version) == ("built, not run", rtx)
    assert record.compute_capabilities == ("8.6", "8.9", "12.0")
    assert record.profile["min"] == record.profile["max"] == (1, 3, 256, 256)
    assert record.sizes["engine"] == result.engine.stat().st_size
    assert record.sizes["weights"] > 2 * 9 * 32 * 32
    assert 50 << 20 < record.sizes["peak_memory"] < 1 << 30
    assert version_in_header(result.engine) == rtx


def test_audit_of_a_sound_model(rtx, make_bundle) -> None:
    audit = build_engine(make_bundle()).audit
    assert audit.passed
    assert audit.warnings == ()
    built = [(layer.name, layer.built, layer.built_storage) for layer in audit.layers]
    assert built == [
        ("stem/Conv", "float32", "float32"),
        ("layers.0/Conv", "int8", "int8"),
        ("layers.1/Conv", "int8", "int8"),
        ("head/MatMul", "float32", "float32"),
    ]
    assert [layer.weight_bytes for layer in audit.layers] == [6144, 9216, 9216, 128]


def test_int4_weights_stay_int4_in_the_engine(rtx, make_bundle) -> None:
    audit = build_engine(make_bundle(storage="int4")).audit
    assert audit.passed
    assert len(audit.unpacking) == 2
    for layer in audit.layers[1:3]:
        assert (layer.built, layer.built_storage) == ("int8", "int4")
        assert layer.weight_bytes == 9216 // 2


def test_sizes_may_be_left_free(rtx, make_bundle) -> None:
    result = build_engine(make_bundle(), side="32:256:512", batch="1:2:4")
    assert result.audit.passed
    assert result.record.profile == {
        "min": (1, 3, 32, 32),
        "opt": (2, 3, 256, 256),
        "max": (4, 3, 512, 512),
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_silent_fallback_fails_the_build(rtx, make_bundle, contents, fault: str) -> None:
    folder = make_bundle(fault=fault)
    before = contents(folder)
    result = build_engine(folder)
    assert result.engine is None
    assert contents(folder) == before
    assert [layer.name for layer in result.audit.fallbacks] == ["layers.1/Conv"]
    (said,) = result.audit.faults
    assert said.startswith("layers.1/Conv: planned int8, built float32 (activations ")


def test_uint8_activations_fail_the_build(rtx, make_bundle, contents) -> None:
    folder = make_bundle(fault="uint8")
    before = contents(folder)
    result = build_engine(folder)
    assert result.engine is None
    assert contents(folder) == before
    assert result.audit.fallbacks == []
    (said,) = result.audit.faults
    assert said.startswith("layers.1.in.q/QuantizeLinear, layers.1.in.d/DequantizeLinear: codes ab")
    assert "uint8-retyped" in said


def test_fallback_can_be_allowed(rtx, make_bundle) -> None:
    result = build_engine(make_bundle(fault="axis"), allow_fallback=True)
    assert result.engine is not None
    assert not result.audit.passed


def test_two_builds_are_identical(rtx, make_bundle) -> None:
    folder = make_bundle()
    first, second = build_engine(folder), build_engine(folder)
    assert first.record.engine_sha256 == second.record.engine_sha256
    assert first.engine != second.engine


def test_second_engine_takes_the_place_of_the_first(rtx, make_bundle, contents) -> None:
    folder = make_bundle()
    build_engine(folder)
    left = folder / ".engine.left"  # by a build that was killed
    left.mkdir()
    second = build_engine(folder, target="rtx-ada", side="64", batch="1:2:4")
    held = [name for name in contents(folder) if name.endswith("model.engine")]
    assert [folder / name for name in held] == [second.engine]
    assert not left.exists()
    record = read_record(Bundle.open(folder))
    assert record.compute_capabilities == ("8.9",)
    assert record.profile["opt"] == (2, 3, 64, 64)


@pytest.mark.parametrize("moment", ["manifest_bytes", "write_atomically"])
def test_nothing_is_left_of_a_build_that_cannot_be_added(
    rtx, make_bundle, contents, monkeypatch, moment: str
) -> None:
    folder = make_bundle()
    build_engine(folder)
    before = contents(folder)

    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"qmdd.exporter.engine.build.{moment}", fail)
    with pytest.raises(OSError, match="No space"):
        build_engine(folder)
    assert contents(folder) == before
    Bundle.open(folder)


def test_bundle_changed_during_the_build(rtx, make_bundle) -> None:
    folder = make_bundle()

    def change(what: str, _done: int, _total: int) -> None:
        if what.startswith("building"):
            path = folder / "manifest.json"
            path.write_bytes(path.read_bytes().replace(b'"bits": 2', b'"bits": 3'))

    with pytest.raises(BuildError, match="was changed while"):
        build_engine(folder, report=change)
    assert Bundle.open(folder).bits == 3
    assert list((folder / "engine").iterdir()) == []


def test_one_build_at_a_time(make_bundle) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder = make_bundle()
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(BuildError, match="another qmdd build is working on it"):
            build_engine(folder)
    finally:
        os.close(handle)


def test_no_engine_is_added_through_a_link(make_bundle, tmp_path: Path) -> None:
    """A bundle that somebody else made may lead anywhere."""
    folder = make_bundle()
    (tmp_path / "elsewhere").mkdir()
    (folder / "engine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="engine: a link"):
        build_engine(folder)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_progress_grows_to_the_end(rtx, make_bundle) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(make_bundle(), report=lambda *event: told.append(event))
    building = [done for what, done, _ in told if what.startswith("building: ")]
    assert len(building) > 20
    assert building == sorted(building)
    assert building[-1] == 1000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "photo"}, "not a detector of qmdd: it must take image .* it has photo: "),
        ({"model": b"no ONNX"}, "no ONNX model, or a cut one"),
    ],
)
def test_model_that_is_not_ours(rtx, make_bundle, contents, options: dict, said: str) -> None:
    folder = make_bundle(**options)
    before = contents(folder)
    with pytest.raises((BuildError, BundleError), match=said):
        build_engine(folder)
    assert contents(folder) == before


def test_model_that_tensorrt_cannot_read(rtx, make_bundle, make_model, contents) -> None:
    model = make_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    folder = make_bundle(model=model.SerializeToString())
    before = contents(folder)
    with pytest.raises(BuildError, match="TensorRT cannot read it"):
        build_engine(folder)
    assert contents(folder) == before


def test_model_that_was_exchanged(make_bundle) -> None:
    folder = make_bundle()
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"model.onnx: its SHA-256 differs"):
        build_engine(folder)


@pytest.mark.parametrize(
    ("bundle", "target", "said"),
    [
        ({}, "onnx", "target onnx has no engine"),
        ({"target": "onnx"}, None, "target onnx has no engine: .* choose a --target"),
        ({"target": "onnx"}, "rtx", "exported for onnx, .* qmdd export --target rtx"),
        ({}, "orin-nanu", "did you mean orin-nano"),
        ({}, "jetson-nano", "no INT8 arithmetic"),
        ({"storage": "int4"}, "orin-nano", r"layers\.0/Conv holds .* as int4, which target orin-n"),
        ({"storage": "int4"}, "tensorrt", "which target tensorrt cannot"),
        ({"storage": "int4"}, "orin-nano@5.1", "opset 21, target orin-nano@5.1 takes 17"),
        ({"changes": {"opset": "x"}}, None, "is written at opset x, target rtx takes 17 to 21"),
        ({"changes": {"plan": None}}, None, "holds no plan to audit"),
        ({"changes": {"plan": [{"name": "x"}]}}, None, "plan: op is None"),
    ],
)
def test_target_that_does_not_go_with_the_bundle(
    make_bundle, contents, bundle: dict, target: str | None, said: str
) -> None:
    folder = make_bundle(**bundle)
    before = contents(folder)
    with pytest.raises(ExportError, match=said):
        build_engine(folder, target=target)
    assert contents(folder) == before


def test_builder_of_jetpack_that_is_not_here(make_bundle, contents) -> None:
    """Where TensorRT proper is installed, it refuses for want of a GPU or another version."""
    folder = make_bundle()
    before = contents(folder)
    with pytest.raises((BuildError, EngineError), match=r"site-packages|tensorrt here is|CUDA"):
        build_engine(folder, target="orin-nano@5.1")
    assert contents(folder) == before


def test_memory_limit_follows_device_and_machine() -> None:
    nano, thor = (default_memory_limit(find_target(name)) for name in ("orin-nano-4gb", "thor"))
    assert 0 < nano <= 3 << 30
    assert nano <= thor


def test_result_is_plain_json(rtx, make_bundle) -> None:
    result = build_engine(make_bundle())
    assert isinstance(result, BuildResult)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["audit"]["int8_built"] == plain["audit"]["int8_planned"] == 2
    assert plain["record"]["target"] == "rtx"
