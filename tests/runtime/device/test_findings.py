"""Each finding, on machines that are made up; and that no facts at all make a failure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmdd.exporter.target_needs import all_needs
from qmdd.runtime.device import judge_python
from qmdd.runtime.device.finding import FAULT, NOTE, OK, STATES, WARNING, Finding
from qmdd.runtime.device.needs import BundleNeeds, TargetNeeds
from qmdd.runtime.doctor import diagnose, findings

Machine = Callable[..., dict[str, Any]]
NOW = 1_800_000_000.0
MIB = 1 << 20


def bundle(target: str = "cpu", **others: Any) -> BundleNeeds:
    return BundleNeeds(path="/b", target=target, size=5 * MIB, **others)


def states(found: Sequence[Finding], what: str) -> list[tuple[str, str, str]]:
    """State, words and advice of all that is said of ``what``, the worst first."""
    told = [(one.state, one.found, one.do) for one in found if one.what == what]
    return sorted(told, key=lambda one: -STATES.index(one[0]))


def faults(found: Sequence[Finding]) -> list[str]:
    return [one.what for one in found if one.state == FAULT]


@pytest.mark.parametrize("name", ["x86", "orin 6.2", "raspberry"])
def test_a_machine_that_is_well(machine: Machine, targets: list[TargetNeeds], name: str) -> None:
    found = findings(machine(name), bundle=bundle(), targets=targets, now=NOW + 60)
    assert faults(found) == []
    assert not [one for one in found if one.state == WARNING]
    assert states(found, "clock") == [(OK, "right", "")]


def test_a_jetson_that_is_well(machine: Machine, targets: list[TargetNeeds]) -> None:
    """And is told by its own name."""
    found = findings(machine("orin 6.2"), target="orin-nano@6.2", targets=targets)
    assert faults(found) == []
    assert states(found, "target") == [(OK, "orin-nano@6.2: builds and runs here", "")]
    assert "JetPack 6.2 (L4T 36.4.3)" in states(found, "device")[0][1]
    found = findings(machine("orin 6.2"), targets=targets)
    (told,) = states(found, "target")
    assert told[::2] == (NOTE, "qmdd export --target orin-nano@6.2")


def test_jetpack_5_has_too_old_a_python(machine: Machine, targets: list[TargetNeeds]) -> None:
    found = findings(machine("orin 5.1"), targets=targets)
    (state, told, do) = states(found, "Python")[0]
    assert state == FAULT
    assert "3.8.10, qmdd needs 3.10" in told
    assert "JetPack 6" in do
    assert "JetPack 5.1 (L4T 35.4.1)" in states(found, "device")[0][1]
    # What deploy would install is not missed on a machine without qmdd.
    assert states(found, "ONNX Runtime")[0][0] == NOTE


CASES = {
    "newer Python beside": (
        {"python": {"version": "3.9.2", "others": {"3.12": "/usr/bin/python3.12"}}},
        ("Python", FAULT, "3.9.2, qmdd needs 3.10", "/usr/bin/python3.12"),
    ),
    "no Python": ({"python": None}, ("Python", FAULT, "none", "install Python 3.10")),
    "32 bits": ({"python": {"bits": 32}}, ("Python", FAULT, "32-bit", "64-bit system")),
    "no venv": (
        {"python": {"ensurepip": False}, "packages": None, "onnxruntime": None},
        ("venv", FAULT, "ensurepip", "sudo apt install python3.11-venv"),
    ),
    "a 32-bit system": (
        {"system": {"machine": "armv7l"}},
        ("system", FAULT, "no ONNX Runtime for armv7l", "64-bit"),
    ),
    "Alpine": ({"system": {"libc": "musl"}}, ("system", FAULT, "musl", "glibc")),
    "old glibc": (
        {"system": {"libc_version": "2.27"}},
        ("system", FAULT, "need glibc 2.28", "newer system"),
    ),
    "no ONNX Runtime": (
        {"onnxruntime": None},
        ("ONNX Runtime", FAULT, "not installed", "pip install 'qmdd[runtime]'"),
    ),
    "not yet": (
        {"onnxruntime": None, "packages": None},
        ("ONNX Runtime", NOTE, "not installed yet", "qmdd deploy"),
    ),
    "broken": (
        {"onnxruntime": {"error": "ImportError: libstdc++.so.6"}},
        ("ONNX Runtime", FAULT, "broken: ImportError: libstdc++", "--force-reinstall"),
    ),
    "old ONNX Runtime": (
        {"onnxruntime": {"version": "1.22.1"}},
        ("ONNX Runtime", FAULT, "1.22.1, qmdd needs 1.23", "onnxruntime>=1.23"),
    ),
    "no Pillow": (
        {"packages": {"pillow": None}},
        ("packages", FAULT, "not installed: pillow", "pip install"),
    ),
    "missing library": (
        {"libraries": {"missing": {"/x/ort.so": ["libgomp.so.1"]}}},
        ("libraries", FAULT, "/x/ort.so does not find libgomp.so.1", "apt-file search libgomp"),
    ),
    "no native operators": (
        {"tools": {"qmdd_native": None}},
        ("native operators", WARNING, "portable model", "compiler is there"),
    ),
    "no compiler either": (
        {"tools": None},
        ("native operators", WARNING, "portable model", "install g++"),
    ),
    "no memory": (
        {"memory": {"available": 100 * MIB}},
        ("memory", FAULT, "detect needs 192 MiB", "end other programs"),
    ),
    "a small container": (
        {"memory": {"limit": 128 * MIB}},
        ("memory", FAULT, "at most 128 MiB here", "--memory"),
    ),
    "full disk": (
        {"disk": {"free": 70 * MIB}},
        ("disk", FAULT, "70 MiB free in /opt/qmdd, 84 MiB are needed", "free some space"),
    ),
    "no inodes": ({"disk": {"files_free": 9}}, ("disk", WARNING, "9 more files", "delete small")),
    "read only": (
        {"disk": {"writable": False}},
        ("disk", FAULT, "not be written", "another folder"),
    ),
    "1970": ({"clock": {"unix": 86_400.0}}, ("clock", FAULT, "before 2026", "timedatectl")),
    "no NTP": ({"clock": {"synchronised": False}}, ("clock", NOTE, "nothing keeps", "timedatectl")),
    "undervoltage": (
        {"power": {"throttled": 0x50005}},
        ("throttling", WARNING, "now: too little voltage", "power supply"),
    ),
    "throttled before": (
        {"power": {"throttled": 0x40000}},
        ("throttling", NOTE, "since it was started: heat", "cool"),
    ),
    "hot": ({"power": {"celsius": 91.0}}, ("temperature", WARNING, "91 degrees", "cool")),
    "no home": ({"user": {"home_writable": False}}, ("home", WARNING, "/home/edge", "HOME")),
    "umask": ({"user": {"umask": "0077"}}, ("umask", NOTE, "0077", "umask 022")),
    "broken driver": (
        {"cuda": {"error": "cuInit gives error 804"}},
        ("GPU", WARNING, "error 804", "nvidia-smi"),
    ),
    "a section failed": (
        {"failed": {"memory": "ValueError: odd"}},
        ("memory", NOTE, "ValueError: odd", ""),
    ),
}


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_what_is_wrong_with_a_computer(
    machine: Machine, targets: list[TargetNeeds], case: str
) -> None:
    """Each stands alone: nothing else is a fault, and the machine as such has none of it."""
    changes, (what, state, says, do) = CASES[case]
    sick = findings(machine("x86", **changes), bundle=bundle(native=True), targets=targets)
    well = findings(machine("x86"), bundle=bundle(native=True), targets=targets)
    hits = [one for one in sick if (one.what, one.state) == (what, state) and says in one.found]
    assert len(hits) == 1, sick
    assert do in hits[0].do
    assert hits[0] not in well
    assert set(faults(sick)) - {"target"} <= {what}


JETSON_CASES = {
    "environment without the system's packages": (
        {
            "tensorrt": {"python": {}, "system": {"version": "10.3.0"}},
            "python": {"system_packages": False},
        },
        ("TensorRT", FAULT, "does not see", "--system-site-packages"),
    ),
    "environment of another Python": (
        {"tensorrt": {"python": {}, "system": {"version": "10.3.0"}}},
        ("TensorRT", FAULT, "another Python", "/usr/bin/python3 -m venv"),
    ),
    "no Python package of it": (
        {"tensorrt": {"python": {}}},
        ("TensorRT", FAULT, "10.3.0, without its Python package", "apt install python3-libnvinfer"),
    ),
    "none at all": ({"tensorrt": None}, ("TensorRT", FAULT, "not installed", "nvidia-jetpack")),
    "broken": (
        {"tensorrt": {"python": {"error": "ImportError: libnvdla_compiler.so"}}},
        ("TensorRT", FAULT, "broken: ImportError: libnvdla", "--reinstall"),
    ),
    "two of them": (
        {"tensorrt": {"python": {"version": "10.7.0"}}},
        ("TensorRT", WARNING, "Python's is 10.7.0, the library that lies here 10.3.0", "uninstall"),
    ),
    "another release": (
        {"tensorrt": {"python": {"version": "10.13.3.9"}, "version": "10.13.3"}},
        ("TensorRT", FAULT, "10.13.3.9 here, orin-nano@6.2 is for 10.3 to 10.7", "--target"),
    ),
    "no GPU": ({"cuda": {"gpus": []}}, ("GPU", FAULT, "none that CUDA finds", "--runtime nvidia")),
    "another GPU": (
        {"cuda": {"gpus": [{"name": "Xavier", "compute_capability": "7.2", "memory": 1}]}},
        ("GPU", FAULT, "is for compute capability 8.7, here is 7.2", "--target"),
    ),
    "low power": (
        {"power": {"mode": "15W"}},
        ("power mode", WARNING, "15W; MAXN_SUPER is faster", "sudo nvpmodel -m 2"),
    ),
    "clocks": ({}, ("clocks", NOTE, "0.73 to 1.73 GHz", "sudo jetson_clocks")),
    "memory for the builder": (
        {"memory": {"available": 900 * MIB, "swap_free": 0}},
        ("memory", WARNING, "TensorRT's builder may take 2.0 GiB", "swap"),
    ),
}


@pytest.mark.parametrize("case", JETSON_CASES, ids=list(JETSON_CASES))
def test_what_is_wrong_with_a_jetson(
    machine: Machine, targets: list[TargetNeeds], case: str
) -> None:
    changes, (what, state, says, do) = JETSON_CASES[case]
    sick = findings(machine("orin 6.2", **changes), target="orin-nano@6.2", targets=targets)
    hits = [one for one in sick if (one.what, one.state) == (what, state) and says in one.found]
    assert len(hits) == 1, sick
    assert do in hits[0].do
    assert set(faults(sick)) - {"target"} <= {what}
    # A target that cannot be completed here is said to be one.
    assert ("target" in faults(sick)) == (state == FAULT)


def test_a_bundle_for_the_processor_needs_no_tensorrt(
    machine: Machine, targets: list[TargetNeeds]
) -> None:
    found = findings(machine("orin 6.2", tensorrt=None), bundle=bundle("cpu"), targets=targets)
    assert faults(found) == []
    assert not states(found, "TensorRT")


def test_a_target_for_a_jetson_on_a_computer(machine: Machine, targets: list[TargetNeeds]) -> None:
    found = findings(machine(), target="orin-nano@6.2", targets=targets)
    assert set(faults(found)) == {"GPU", "TensorRT", "target"}
    assert "no Jetson" in states(found, "target")[0][1]
    assert "qmdd deploy" in states(found, "TensorRT")[0][2]


def test_engines_for_cards_are_built_anywhere(machine: Machine, targets: list[TargetNeeds]) -> None:
    found = findings(machine(), target="rtx-ada", targets=targets)
    assert faults(found) == ["TensorRT-RTX", "target"]
    packages = {
        **{"tensorrt-rtx-cu13-bindings": "1.7.1.116", "tensorrt-rtx-cu13-libs": "1.7.1.116"},
        "nvidia-cuda-runtime": "13.5.37",
    }
    found = findings(machine(packages=packages), target="rtx-ada", targets=targets)
    assert faults(found) == []
    assert states(found, "target")[0][:2] == (
        NOTE,
        "rtx-ada: builds here: no GPU that CUDA finds",
    )
    packages["tensorrt-rtx-cu13-bindings"] = "1.6.0"
    found = findings(machine(packages=packages), target="rtx-ada", targets=targets)
    assert "1.6.0 here, rtx-ada is for 1.7" in states(found, "TensorRT-RTX")[0][1]


@pytest.mark.parametrize(
    ("there", "state", "says"),
    [
        (NOW + 299, OK, "right"),
        (NOW + 301, FAULT, "5 minutes fast"),
        (NOW - 7_201, FAULT, "2 hours slow"),
        (NOW - 200_000, FAULT, "2 days slow"),
    ],
)
def test_a_clock_beside_one_that_is_trusted(
    machine: Machine, there: float, state: str, says: str
) -> None:
    (told,) = states(findings(machine(clock={"unix": there}), now=NOW), "clock")
    assert told[0] == state
    assert says in told[1]


def test_a_clock_before_the_bundle_was_written(machine: Machine) -> None:
    known = bundle(written=NOW + 3_000_000)
    (told,) = states(findings(machine(), bundle=known), "clock")
    assert told[0] == FAULT
    assert "35 days before the bundle was written" in told[1]
    assert states(findings(machine(), bundle=bundle(written=NOW - 9)), "clock")[0][0] == OK


def test_a_target_that_nobody_knows(machine: Machine, targets: list[TargetNeeds]) -> None:
    found = findings(machine(), bundle=bundle("orin-max@9"), targets=targets)
    assert states(found, "target") == [
        (WARNING, "orin-max@9: not one that this qmdd knows", "upgrade qmdd")
    ]


def test_a_refused_target(machine: Machine, targets: list[TargetNeeds]) -> None:
    found = findings(machine(), target="jetson-nano", targets=targets)
    assert faults(found) == ["target"]
    assert "no INT8 arithmetic" in states(found, "target")[0][1]


def test_the_least_versions_are_those_of_the_package() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    python = ".".join(map(str, judge_python.PYTHON))
    onnxruntime = ".".join(map(str, judge_python.ONNXRUNTIME))
    assert re.search(rf'^requires-python = ">={re.escape(python)}"$', project, re.M)
    assert f'"onnxruntime>={onnxruntime}"' in project


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["10.3.0", "8.7", "3.8", "6.2", "glibc", "MAXN", "36.4.3", "x86_64"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
ALL_NEEDS = all_needs()


def _mutated(plain: Any, data: st.DataObject) -> Any:
    """The same facts, a few places of them replaced, each perhaps by something odd."""
    if isinstance(plain, dict) and data.draw(st.integers(0, 14)) != 0:
        return {key: _mutated(value, data) for key, value in plain.items()}
    return data.draw(ODD) if data.draw(st.integers(0, 7)) == 0 else plain


@settings(max_examples=60)
@given(st.data())
def test_odd_facts_are_never_a_failure(machine: Machine, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["x86", "orin 6.2", "orin 5.1", "raspberry"]))
    facts = _mutated(machine(name), data)
    wanted = data.draw(st.sampled_from([None, "cpu", "openvino", "rtx", "orin-nano@6.2"]))
    found = diagnose(
        facts, bundle=bundle("cpu", native=True), target=wanted, targets=ALL_NEEDS, now=NOW
    )
    assert found.findings
    assert len(found.fits) == len(ALL_NEEDS)
    for one in found.findings:
        assert one.state in STATES
        assert one.found


@given(ODD)
def test_something_else_than_facts_is_a_machine_of_which_nothing_is_known(facts: Any) -> None:
    assert "Python" in faults(findings(facts, targets=ALL_NEEDS))


def test_no_advice_is_a_command_of_the_machines_own(targets: list[TargetNeeds]) -> None:
    """People copy it: whatever a machine calls its Python stays one word of it."""
    evil = "3.9;reboot"
    python = {
        **{"version": evil, "executable": evil, "system": evil, "others": {"3.12": evil}},
        **{"venv": False, "ensurepip": False, "environment": True, "system_packages": True},
    }
    jetson = {"model": "NVIDIA Jetson Orin Nano", "l4t": "36.4.0"}
    facts = {"python": python, "jetson": jetson, "tensorrt": {"system": {"version": "10.3.0"}}}
    for version in (evil, "3.11.2;reboot", ";reboot"):
        python["version"] = version
        told = [one.do for one in findings(facts, targets=targets)]
        assert any(shlex.quote(evil) in text for text in told)
        assert not any("reboot" in text.replace(shlex.quote(evil), "") for text in told)
