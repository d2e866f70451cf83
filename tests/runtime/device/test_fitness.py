"""Which device a bundle may be deployed to, and with which of qmdd's extras."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmdd.runtime.bundle import Bundle
from qmdd.runtime.deploy.fitness import judge, native_platform, tensorrt_of
from qmdd.runtime.device.needs import TargetNeeds
from qmdd.runtime.errors import DeployError

Machine = Callable[..., dict[str, Any]]
NOW = 1_800_000_000.0


@pytest.fixture
def judged(machine: Machine, targets: list[TargetNeeds]) -> Callable[..., Any]:
    """``judged(machine's name, target, **facts)``: extras and warnings."""

    def run(name: str, target: str, now: float = NOW, **facts: Any) -> Any:
        need = next(one for one in targets if one.name == target)
        bundle = Bundle(Path("bundle"), {"target": target, "runtime": need.runtime, "files": {}})
        return judge(bundle, machine(name, **facts), need, now)

    return run


@pytest.mark.parametrize(
    ("name", "target", "extras"),
    [
        ("x86", "cpu", ("runtime",)),
        ("x86", "onnx", ("runtime",)),
        ("x86", "openvino", ("openvino",)),
        ("raspberry", "cpu", ("runtime",)),
        ("orin 6.2", "cpu", ("runtime",)),
        ("orin 6.2", "orin-nano@6.2", ("runtime",)),
        ("orin 6.2", "tensorrt", ("runtime",)),
    ],
)
def test_what_may_be_deployed(
    judged: Callable[..., Any], name: str, target: str, extras: tuple[str, ...]
) -> None:
    assert judged(name, target) == (extras, [])


def test_a_card_needs_the_extra_of_its_builder(judged: Callable[..., Any]) -> None:
    gpu = {"gpus": [{"name": "RTX 4090", "compute_capability": "8.9", "memory": 24 << 30}]}
    assert judged("x86", "rtx-ada", cuda=gpu)[0] == ("runtime", "rtx")
    with pytest.raises(DeployError, match=r"compute capability 8\.9; export for its own target"):
        judged("x86", "rtx-ampere", cuda=gpu)


@pytest.mark.parametrize(
    ("name", "target", "facts", "says"),
    [
        ("x86", "qonnx", {}, "scores no images"),
        ("raspberry", "openvino", {}, "the device is aarch64; export with --target cpu"),
        ("x86", "orin-nano@6.2", {}, "for orin-nano@6.2, the device is not: no TensorRT; no GPU"),
        ("x86", "rtx-ada", {}, "for rtx-ada, the device is not: no GPU that CUDA finds"),
        ("orin 6.2", "orin-nano@5.1", {}, r"TensorRT: 10\.3\.0 here, orin-nano@5.1 is for 8\.5"),
        ("orin 6.2", "thor@7.1", {}, r"GPU: thor@7.1 is for compute capability 11\.0"),
        ("orin 6.2", "agx-orin@6.2", {}, r"7\.4 GiB of memory, not 64\.0 GiB"),
        ("orin 5.1", "orin-nx@5.1", {}, r"Python: 3\.8\.10, qmdd needs 3\.10"),
        ("orin 6.2", "orin-nano@6.2", {"tensorrt": {"python": {}, "system": {"version": "10.3.0"}}},
         r"TensorRT: 10\.3\.0, but for /usr/bin/python3, .*; deploy with --python /usr/bin/"),
        ("x86", "cpu", {"python": {"ensurepip": False}}, "venv: no module ensurepip.*sudo apt"),
        ("x86", "cpu", {"system": {"libc": "musl"}}, "no ONNX Runtime for musl"),
        ("x86", "cpu", {"system": {"machine": "armv7l"}}, "no ONNX Runtime for armv7l"),
    ],
)  # fmt: skip
def test_what_may_not(
    judged: Callable[..., Any], name: str, target: str, facts: dict[str, Any], says: str
) -> None:
    with pytest.raises(DeployError, match=says):
        judged(name, target, **facts)


def test_what_a_person_should_know(judged: Callable[..., Any]) -> None:
    """A wrong clock, a low power mode and little memory stop no deployment."""
    _, warnings = judged("x86", "cpu", now=NOW + 1200 * 86400)
    assert len(warnings) == 1
    assert warnings[0].startswith("clock: 1,200 days slow: TLS fails")
    _, warnings = judged("orin 6.2", "orin-nano@6.2", power={"mode": "15W", "number": 0})
    assert ["power mode" in line for line in warnings] == [True]
    _, warnings = judged("x86", "cpu", memory={"available": 100 << 20})
    assert ["memory" in line for line in warnings] == [True]


def test_odd_facts_are_refused_not_stumbled_over(judged: Callable[..., Any]) -> None:
    for python in ({"version": 3.11}, {"version": "new"}, {"version": None}, {"version": ""}):
        with pytest.raises(DeployError, match="Python"):
            judged("x86", "cpu", python=python)


def test_whose_native_library_runs_there(machine: Machine, monkeypatch: Any) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert native_platform(machine()) == "linux_x86_64"
    assert native_platform(machine("raspberry")) is None
    assert native_platform(machine(system={"libc_version": "2.35"})) is None
    assert native_platform(machine(system={"libc": "musl"})) is None
    assert native_platform({}) is None
    assert tensorrt_of(machine("orin 6.2")) == "10.3.0"
    assert tensorrt_of({}) is None
