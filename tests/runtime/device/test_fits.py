"""Which target fits which machine, the engine that lies in a bundle, and the words for JetPack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmdd.exporter.targets import TARGETS
from qmdd.runtime.bundle import Bundle
from qmdd.runtime.device.facts import Facts, mebibytes, numbers, within
from qmdd.runtime.device.finding import FAULT, OK
from qmdd.runtime.device.fits import fits, suggested
from qmdd.runtime.device.jetpack import jetpack_of
from qmdd.runtime.device.needs import BundleNeeds, TargetNeeds, bundle_needs
from qmdd.runtime.doctor import findings
from qmdd.runtime.engine import EngineRecord

Machine = Callable[..., dict[str, Any]]
GIB = 1 << 30


def runs(facts: dict[str, Any], targets: list[TargetNeeds]) -> set[str]:
    return {fit.target for fit in fits(Facts(facts), targets) if fit.runs}


def test_what_runs_where(machine: Machine, targets: list[TargetNeeds]) -> None:
    interpreted = {"onnx", "cpu", "canonical"}
    assert runs(machine(), targets) == interpreted
    assert runs(machine("raspberry"), targets) == interpreted
    # The lighter module's engines load as well: the same GPU, the same TensorRT.
    orin = {"orin-nano@6.2", "orin-nano@6.1", "orin-nano-4gb@6.2", "orin-nano-4gb@6.1"}
    orin |= {"orin-nx-8gb@6.2", "orin-nx-8gb@6.1", "tensorrt"}
    assert runs(machine("orin 6.2"), targets) == interpreted | orin


def test_what_a_deployment_will_bring(machine: Machine, targets: list[TargetNeeds]) -> None:
    def waiting(facts: dict[str, Any]) -> set[str]:
        return {fit.target for fit in fits(Facts(facts), targets) if fit.once_deployed}

    bare = {"packages": None, "onnxruntime": None}
    assert waiting(machine(**bare)) == {"onnx", "cpu", "canonical", "openvino"}
    assert waiting(machine("raspberry", **bare)) == {"onnx", "cpu", "canonical"}
    assert waiting(machine()) == set()


def test_why_not(machine: Machine, targets: list[TargetNeeds]) -> None:
    """Every target that does not fit says why; one that does says nothing."""
    for name in ("x86", "orin 6.2", "orin 5.1", "raspberry"):
        for fit in fits(Facts(machine(name)), targets):
            assert bool(fit.why) != fit.runs, fit
    why = {fit.target: fit.why for fit in fits(Facts(machine("orin 6.2")), targets)}
    assert why["orin-nano@6.0"] == ("TensorRT is 10.3.0, not 8.6",)
    assert why["agx-orin@6.2"] == ("7.4 GiB of memory, not 64.0 GiB",)
    assert "compute capability 8.7, not 7.2" in why["agx-xavier@5.1"]
    assert why["openvino"] == ("no x86 processor",)


@pytest.mark.parametrize(
    ("model", "gib", "release", "name"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", 7.4, "36.4.3", "orin-nano@6.2"),
        ("NVIDIA Jetson Orin Nano 4GB", 3.5, "36.4.0", "orin-nano-4gb@6.1"),
        ("NVIDIA Jetson Orin NX 16GB", 15.3, "36.3.0", "orin-nx@6.0"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 61.4, "35.4.1", "agx-orin@5.1"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 29.9, "36.4.4", "agx-orin-32gb@6.2"),
        ("NVIDIA Jetson AGX Thor Developer Kit", 122.8, "38.4.0", "thor@7.1"),
        ("NVIDIA Jetson Xavier NX", 6.7, "35.5.0", "xavier-nx@5.1"),
        ("NVIDIA Jetson Nano Developer Kit", 3.9, "32.7.1", None),
        ("Raspberry Pi 5 Model B", 3.9, "", None),
        ("NVIDIA Jetson Orin Nano", 7.4, "99.1", None),
    ],
)
def test_a_jetson_tells_its_target(
    machine: Machine,
    targets: list[TargetNeeds],
    model: str,
    gib: float,
    release: str,
    name: str | None,
) -> None:
    facts = machine("orin 6.2", memory={"total": int(gib * GIB)})
    facts["jetson"] = {"model": model, "l4t": release}
    found = suggested(Facts(facts), targets)
    assert (found and found.name) == name


def test_every_jetson_among_the_targets_can_be_suggested(targets: list[TargetNeeds]) -> None:
    """Its own summary as the model's name, its memory less what the system keeps."""
    for target in targets:
        if target.jetpack and not target.refused:
            facts = Facts(
                {
                    "jetson": {"model": f"NVIDIA {target.summary}", "jetpack": target.jetpack},
                    "memory": {"total": int(0.93 * target.memory)},
                }
            )
            assert suggested(facts, targets) == target


@pytest.mark.parametrize(
    ("package", "release", "jetpack"),
    [
        ("6.2.1+b38", "36.4.4", "6.2"),
        ("", "36.4.3", "6.2"),
        ("", "36.4.0", "6.1"),
        ("", "36.2.0", "6.0"),
        ("", "35.6.1", "5.1"),
        ("", "35.1.0", "5.0"),
        ("", "32.7.4", "4.6"),
        ("", "28.2", ""),
        ("", "40.1", ""),
        ("", "", ""),
    ],
)
def test_which_jetpack(package: str, release: str, jetpack: str) -> None:
    assert jetpack_of(Facts({"jetson": {"jetpack": package, "l4t": release}})) == jetpack


def test_versions() -> None:
    assert numbers("10.3.0.post1") == (10, 3, 0)
    assert numbers("v10") == ()
    assert within("10.3.0", ("10.3", "10.7"))
    assert within("10.7.9", ("10.3", "10.7"))
    assert not within("10.8", ("10.3", "10.7"))
    assert not within("10.2.9", ("10.3", "10.7"))
    assert not within("", ("", ""))
    assert mebibytes(512 << 20) == "512 MiB"
    assert mebibytes(3 << 29) == "1.5 GiB"


RECORD = EngineRecord(
    label="built, not run",
    target="orin-nano@6.2",
    backend="tensorrt",
    version="10.3.0",
    compute_capabilities=("8.7",),
    systems=("Linux",),
    machine="aarch64",
    onnx_sha256="0" * 64,
    engine_sha256="1" * 64,
    profile=dict.fromkeys(("min", "opt", "max"), (1, 3, 256, 256)),
    options={},
    seconds={},
    sizes={"engine": 1, "weights": 1, "activations": 1, "peak_memory": 1},
    device={},
)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"version": "10.7.0"}, "built for tensorrt 10.7.0, here is 10.3.0"),
        ({"version": "10.3.1"}, "here is 10.3.0"),
        ({"machine": "x86_64"}, "architecture x86_64, here is aarch64"),
        ({"systems": ("Windows",)}, "built for system Windows, here is Linux"),
        ({"compute_capabilities": ("8.9", "12.0")}, "compute capability 8.9 or 12.0, here is 8.7"),
        ({"backend": "tensorrt_rtx", "version": "1.7.1"}, ""),
    ],
)
def test_an_engine_that_does_not_load_here(
    machine: Machine, targets: list[TargetNeeds], changes: dict[str, Any], says: str
) -> None:
    engine = dataclasses.replace(RECORD, **changes)
    bundle = BundleNeeds(path="/b c", target="orin-nano@6.2", size=9, engine=engine)
    found = findings(machine("orin 6.2"), bundle=bundle, targets=targets)
    (told,) = [one for one in found if one.what == "engine"]
    assert told.state == (FAULT if says else OK)
    assert says in told.found
    assert told.do == ("qmdd build '/b c'" if says else "")


def test_what_a_bundle_needs(make_bundle: Callable[..., Path]) -> None:
    path = make_bundle()
    needs = bundle_needs(Bundle.open(path))
    assert (needs.target, needs.native, needs.engine) == ("onnx", False, None)
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "manifest.json"]
    assert needs.size == sum(file.stat().st_size for file in files)
    assert needs.written == (path / "manifest.json").stat().st_mtime


def test_the_needs_of_the_targets_are_the_table(targets: list[TargetNeeds]) -> None:
    assert [target.name for target in targets] == list(TARGETS)
    (orin,) = [target for target in targets if target.name == "orin-nano@6.2"]
    assert orin == TargetNeeds(
        name="orin-nano@6.2",
        summary="Jetson Orin Nano 8 GB, JetPack 6.2",
        backend="tensorrt",
        versions=("10.3", "10.7"),
        capabilities=("8.7",),
        jetpack="6.2",
        memory=8 * GIB,
        workspace=512 << 20,
    )
