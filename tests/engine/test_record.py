"""Sidecars: what they say, and which engines are refused before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from qmdd.exporter.engine.build import build_engine
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.engine import (
    Machine,
    architecture,
    check_engine,
    read_record,
    refusal,
    this_machine,
)
from qmdd.runtime.errors import BundleError, EngineError

DEVICE = Machine("tensorrt", "10.3.0", "8.7", "Linux", "aarch64")


def test_engine_of_this_machine_is_taken(make_bundle, add_engine, record) -> None:
    bundle = Bundle.open(add_engine(make_bundle()))
    found = check_engine(bundle, DEVICE)
    assert found.compute_capabilities == ("8.7",)
    assert found.profile == record.profile


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({"version": "10.7.0"}, "by version 10.3.0, and this machine has 10.7.0"),
        ({"version": "10.3.0.1"}, "by version 10.3.0, and this machine has 10.3.0.1"),
        ({"compute_capability": "8.6"}, "for compute capability 8.7, and this machine has 8.6"),
        ({"system": "Windows"}, "for system Linux, and this machine has Windows"),
        ({"machine": "x86_64"}, "for architecture aarch64, and this machine has x86_64"),
        ({"backend": "tensorrt_rtx"}, "for backend tensorrt, and this machine has tensorrt_rtx"),
    ],
)
def test_engine_of_another_machine_is_refused(make_bundle, add_engine, machine, said) -> None:
    bundle = Bundle.open(add_engine(make_bundle()))
    with pytest.raises(EngineError) as caught:
        check_engine(bundle, dataclasses.replace(DEVICE, **machine))
    text = str(caught.value)
    assert said in text
    assert text.endswith("; run qmdd build again here")
    assert "\n" not in text


def test_real_engine_loads_on_what_it_was_built_for(rtx, make_bundle) -> None:
    record = build_engine(make_bundle()).record
    fits = Machine("tensorrt_rtx", rtx, "8.9", "Windows", record.machine)
    assert refusal(record, fits) is None
    hopper = refusal(record, dataclasses.replace(fits, compute_capability="9.0"))
    assert hopper is not None
    assert "for compute capability 8.6 or 8.9 or 12.0, and this machine has 9.0" in hopper


def test_machine_without_a_gpu_says_so(rtx) -> None:
    """On a machine with one, its compute capability is read."""
    try:
        machine = this_machine("tensorrt_rtx")
    except EngineError as error:
        assert "CUDA" in str(error)  # noqa: PT017 - either is right, by the machine
    else:
        assert machine.version == rtx
        assert machine.compute_capability.count(".") == 1


@pytest.mark.parametrize(("told", "name"), [("AMD64", "x86_64"), ("arm64", "aarch64")])
def test_architecture_has_one_name_on_every_system(monkeypatch, told: str, name: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: told)
    assert architecture() == name


def test_bundle_without_an_engine(make_bundle) -> None:
    with pytest.raises(EngineError, match="holds no engine; run qmdd build first"):
        read_record(Bundle.open(make_bundle()))


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "must hold an object"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "schema is None, this qmdd reads 1"),
        (b'{"schema": 2}', "schema is 2"),
        (b" " * (16 << 20) + b"{}", "larger than 16 MiB"),
    ],
)
def test_sidecar_that_is_not_ours(make_bundle, add_engine, sidecar: bytes, said: str) -> None:
    bundle = Bundle.open(add_engine(make_bundle(), sidecar=sidecar))
    with pytest.raises(EngineError, match=said):
        read_record(bundle)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("version", 10, "version must be str"),
        ("label", None, "label must be str"),
        ("compute_capabilities", [], "compute_capabilities must hold names"),
        ("systems", [1], "systems must hold names"),
        ("device", [], "device must be dict"),
        ("backend", "tvm", "no backend 'tvm'"),
        ("profile", {"min": [1, 3, 32, 32]}, "profile needs min, opt and max"),
        ("profile", {"min": [1, 3, 32, 32.5]}, "profile needs min, opt and max"),
        ("sizes", {"engine": 1}, "sizes and seconds must be numbers"),
        ("seconds", {"build": "1"}, "sizes and seconds must be numbers"),
    ],
)
def test_spoilt_sidecar(make_bundle, add_engine, record, key, value, said) -> None:
    plain = json.loads(record.to_json())
    plain[key] = value
    bundle = Bundle.open(add_engine(make_bundle(), sidecar=json.dumps(plain).encode()))
    with pytest.raises(EngineError, match=said):
        read_record(bundle)


@pytest.mark.parametrize(
    ("key", "what"), [("onnx_sha256", "ONNX file"), ("engine_sha256", "engine")]
)
def test_sidecar_of_another_build(make_bundle, add_engine, key: str, what: str) -> None:
    bundle = Bundle.open(add_engine(make_bundle(), **{key: "1" * 64}))
    with pytest.raises(EngineError, match=f"belongs to another {what} than the bundle's"):
        read_record(bundle)


def test_sidecar_survives_json(make_bundle, add_engine, record) -> None:
    bundle = Bundle.open(add_engine(make_bundle()))
    found = read_record(bundle)
    same = {"onnx_sha256": found.onnx_sha256, "engine_sha256": found.engine_sha256}
    assert found == dataclasses.replace(record, **same)


@pytest.mark.parametrize("entry", ["engine/1", {"folder": 1}, {"folder": "elsewhere"}, {}])
def test_manifest_that_names_no_whole_engine(make_bundle, entry: object) -> None:
    bundle = Bundle.open(make_bundle(changes={"engine": entry}))
    with pytest.raises(EngineError, match="names no whole engine"):
        read_record(bundle)


def test_engine_that_was_exchanged_is_found_on_opening(make_bundle, add_engine) -> None:
    folder: Path = add_engine(make_bundle())
    (folder / "engine/1/model.engine").write_bytes(b"enginE")
    with pytest.raises(BundleError, match=r"model.engine: its SHA-256 differs"):
        Bundle.open(folder)
