"""What the facts of a machine mean for running bundles on it: ``qmdd doctor``.

The facts come from :func:`qmdd.runtime.device.probe.collect`, of this machine or of another one:
nothing in them is trusted, and whatever is missing or odd is a finding fewer, never a failure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from .device.facts import Facts
from .device.finding import FAULT, NOTE, OK, WARNING, Finding, worst
from .device.fits import Fit, fit, fits, suggested
from .device.judge_gpu import judge_engine, judge_gpu, judge_jetson, judge_tensorrt
from .device.judge_machine import (
    judge_clock,
    judge_disk,
    judge_memory,
    judge_power,
    judge_user,
)
from .device.judge_python import judge_python, judge_runtime, judge_system
from .device.needs import BundleNeeds, TargetNeeds

__all__ = ["BundleNeeds", "Diagnosis", "Finding", "TargetNeeds", "diagnose", "findings"]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A doctor's report.

    Attributes:
        findings: in the order in which they are shown.
        fits: every target on this machine.
        facts: what they stand on.
    """

    findings: list[Finding]
    fits: list[Fit]
    facts: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """Whether nothing is a fault."""
        return worst(self.findings) != FAULT

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "state": worst(self.findings),
            "findings": [finding.to_dict() for finding in self.findings],
            "targets": [one.to_dict() for one in self.fits],
            "facts": self.facts,
        }


def diagnose(
    facts: object,
    *,
    bundle: BundleNeeds | None = None,
    target: str | None = None,
    targets: Sequence[TargetNeeds] = (),
    now: float | None = None,
) -> Diagnosis:
    """Findings and what fits; arguments as of :func:`findings`."""
    plain = facts if isinstance(facts, dict) else {}
    found = findings(facts, bundle=bundle, target=target, targets=targets, now=now)
    return Diagnosis(found, fits(Facts(facts), targets), plain)


def findings(
    facts: object,
    *,
    bundle: BundleNeeds | None = None,
    target: str | None = None,
    targets: Sequence[TargetNeeds] = (),
    now: float | None = None,
) -> list[Finding]:
    """What was found, and what to do about it.

    Args:
        facts: what :func:`~.device.probe.collect` gave, here or elsewhere.
        bundle: one that is to run there.
        target: the full name of a target, one of ``targets``; default: the bundle's.
        targets: all that there are.
        now: seconds since 1970 by a clock that is trusted; default: only the bundle's own date is
            compared.
    """
    known = Facts(facts)
    name = target or (bundle.target if bundle is not None else None)
    wanted = next((one for one in targets if one.name == name), None)
    engine = wanted if wanted is not None and wanted.backend else None
    found = [
        *judge_python(known),
        *judge_system(known),
        *judge_jetson(known),
        *judge_memory(known, wanted),
        *judge_disk(known, bundle),
        *judge_runtime(known, bundle),
        *judge_gpu(known, engine),
    ]
    # Who asks for a target that needs no engine misses no TensorRT.
    if wanted is None or engine is not None:
        found += judge_tensorrt(known, engine)
    if bundle is not None:
        found += judge_engine(known, bundle)
    found += judge_power(known)
    found += judge_clock(known, bundle, now)
    found += judge_user(known)
    found += _judge_target(known, wanted, name, targets)
    found += _failed(known)
    return found


def _judge_target(
    facts: Facts, wanted: TargetNeeds | None, name: str | None, targets: Sequence[TargetNeeds]
) -> Iterator[Finding]:
    if wanted is not None:
        here = fit(facts, wanted)
        state = OK if here.runs else NOTE if here.builds else FAULT
        told = "builds and runs here" if here.runs else "builds here"
        told = told if here.builds else "cannot be completed here"
        if state == FAULT and not facts.prepared and not wanted.backend and not wanted.refused:
            state, told = NOTE, "can be, once its runtime is installed"
        found = ": ".join(part for part in (wanted.name, told, "; ".join(here.why)) if part)
        do = "choose one that fits: qmdd doctor lists them" if state == FAULT else ""
        yield Finding("target", state, found, do)
    elif name:
        yield Finding("target", WARNING, f"{name}: not one that this qmdd knows", "upgrade qmdd")
    near = suggested(facts, targets)
    if near is not None and wanted != near:
        do = f"qmdd export --target {near.name}"
        yield Finding("target", NOTE, f"this machine is {near.name}: {near.summary}", do)


def _failed(facts: Facts) -> Iterator[Finding]:
    for name in list(facts.table("failed"))[:20]:
        told = facts.text("failed", name)
        yield Finding(str(name)[:40], NOTE, f"could not be looked at: {told}")
