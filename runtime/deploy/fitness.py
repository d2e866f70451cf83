"""Whether a device can run a bundle: the doctor's judgement, before anything is copied."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from typing import Any

from ..bundle import Bundle
from ..device.facts import Facts, numbers
from ..device.finding import FAULT, OK, Finding
from ..device.fits import fit
from ..device.judge_gpu import RTX, TENSORRT, is_jetson, judge_engine, judge_gpu, judge_tensorrt
from ..device.judge_machine import judge_clock, judge_memory, judge_power
from ..device.judge_python import judge_python, judge_system
from ..device.needs import TargetNeeds, bundle_needs
from ..errors import DeployError
from ..sessions import OPENVINO, RUNTIMES

#: Faults that make a deployment pointless; of others a person is told.
_HOPELESS = ("Python", "venv", "system", "GPU", "TensorRT")
_CPU = "--runtime onnxruntime runs the model on its CPU"


def judge(
    bundle: Bundle, facts: Mapping[str, Any], need: TargetNeeds, now: float
) -> tuple[tuple[str, ...], list[str]]:
    """The extras of qmdd that ``bundle`` needs on a device, and what else a person should know.

    Args:
        bundle: an opened bundle.
        facts: the device's (:func:`qmdd.runtime.device.probe.collect`).
        need: of the bundle's target; without ``backend`` if the model itself is run.
        now: seconds since 1970 by the clock here.

    Raises:
        DeployError: the device cannot run it; why, and what to do.
    """
    # An environment of its own is made there, whatever is installed for its Python.
    known = Facts({**facts, "packages": {}})
    if bundle.runtime not in RUNTIMES:
        raise DeployError(
            f"the bundle is for {bundle.target}, which scores no images; export the checkpoint for "
            "the device's own target"
        )
    found = [*judge_python(known), *judge_system(known)]
    if need.backend and (is_jetson(known) or not need.jetpack):
        found += judge_gpu(known, need)
        if need.backend == TENSORRT:
            found += judge_tensorrt(known, need)
    hopeless = [one for one in found if one.state == FAULT and one.what in _HOPELESS]
    if hopeless:
        system = known.text("python", "system")
        if hopeless[0].what == "TensorRT" and known.text(TENSORRT, "system", "version") and system:
            python = shlex.quote(system)
            raise DeployError(f"TensorRT: {hopeless[0].found}; deploy with --python {python}")
        raise DeployError(in_words(hopeless[0]))
    _check_target(known, need)
    _check_processor(known, need)
    found += [*judge_memory(known, need), *judge_power(known), *judge_clock(known, None, now)]
    warnings = [in_words(one) for one in found if one.state not in (OK, "note")]
    return extras_of(need), warnings


def _check_target(known: Facts, need: TargetNeeds) -> None:
    against = fit(known, need).why if need.backend == TENSORRT else ()
    if need.backend == RTX and not set(known.capabilities()) & set(need.capabilities):
        here = ", ".join(known.capabilities())
        against = (f"compute capability {here}" if here else "no GPU that CUDA finds",)
    if against:
        raise DeployError(
            f"the bundle is for {need.name}, the device is not: {'; '.join(against)}; export for "
            f"its own target (qmdd doctor --host names it), or {_CPU}"
        )


def extras_of(need: TargetNeeds) -> tuple[str, ...]:
    """The extras of qmdd that run a bundle of such a target."""
    if need.backend == RTX:
        return ("runtime", "rtx")
    return ("openvino",) if need.runtime == OPENVINO else ("runtime",)


def _check_processor(known: Facts, need: TargetNeeds) -> None:
    machine = known.text("system", "machine")
    if need.runtime == OPENVINO and machine not in ("x86_64", "AMD64"):
        raise DeployError(
            f"the bundle is for OpenVINO on x86, the device is {machine or 'something else'}; "
            f"export with --target cpu, or {_CPU}"
        )


def in_words(finding: Finding) -> str:
    """A finding as a part of a line."""
    do = f"; {finding.do}" if finding.do else ""
    return f"{finding.what}: {finding.found}{do}"


def engine_fault(bundle: Bundle, facts: Mapping[str, Any]) -> str | None:
    """Why a device cannot load the bundle's engine; ``None`` if it can, or there is none.

    Raises:
        EngineError: the engine's sidecar is not one of ours.
    """
    for finding in judge_engine(Facts(facts), bundle_needs(bundle)):
        if finding.state == FAULT:
            return finding.found
    return None


def tensorrt_of(facts: Mapping[str, Any]) -> str | None:
    """Version of the TensorRT that the device's Python sees, ``None`` without one."""
    return Facts(facts).text(TENSORRT, "python", "version") or None


def native_platform(facts: Mapping[str, Any]) -> str | None:
    """Platform of the native operators' library if it, built here, runs there; ``None`` if not."""
    there = Facts(facts)
    name, version = platform.libc_ver()
    if platform.system() != "Linux" or name != "glibc":
        return None
    same = there.text("system", "machine") == platform.machine()
    if not same or there.text("system", "libc") != name:
        return None
    newer = numbers(there.text("system", "libc_version")) >= numbers(version)
    return f"linux_{platform.machine()}" if newer else None
