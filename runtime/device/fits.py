"""What fits which target: may a bundle for it be built on this machine, and run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from .facts import Facts, mebibytes, numbers, within
from .jetpack import jetpack_of
from .judge_gpu import RTX, TENSORRT, is_jetson
from .judge_python import ONNXRUNTIME
from .needs import TargetNeeds

#: Of a module's nominal memory the system shows some 5 % less.
_SHOWN = 0.8


@dataclasses.dataclass(frozen=True)
class Fit:
    """A target on a machine.

    Attributes:
        target: its name.
        summary: for people.
        builds: whether a bundle for it can be completed there (its engine, where it has one).
        runs: whether such a bundle can be run there.
        why: what stands against it; empty where nothing does.
        once_deployed: whether it lacks only what ``qmdd deploy`` installs.
    """

    target: str
    summary: str
    builds: bool
    runs: bool
    why: tuple[str, ...] = ()
    once_deployed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)


def fits(facts: Facts, targets: Iterable[TargetNeeds]) -> list[Fit]:
    """Each of ``targets`` on the machine with these facts, in order."""
    return [fit(facts, target) for target in targets]


def fit(facts: Facts, target: TargetNeeds) -> Fit:
    """One target on the machine with these facts."""
    if target.refused:
        return Fit(target.name, target.summary, False, False, (target.refused,))
    if target.backend == TENSORRT:
        against = (*_tensorrt(facts, target), *_gpu(facts, target), *_module(facts, target))
        return Fit(target.name, target.summary, not against, not against, against)
    if target.backend == RTX:
        builder, gpu = _rtx(facts, target), _gpu(facts, target)
        runs = not builder and not gpu
        return Fit(target.name, target.summary, not builder, runs, (*builder, *gpu))
    against = _interpreter(facts, target)
    x86 = facts.text("system", "machine") in ("x86_64", "AMD64")
    installed = target.runtime == "onnxruntime" or (target.runtime == "openvino" and x86)
    return Fit(
        target.name,
        target.summary,
        not against,
        not against,
        against,
        once_deployed=bool(against) and installed and not facts.prepared,
    )


def suggested(facts: Facts, targets: Iterable[TargetNeeds]) -> TargetNeeds | None:
    """The target that a Jetson's own name, memory and JetPack point to, if there is one."""
    model, jetpack = facts.text("jetson", "model"), jetpack_of(facts)
    total = facts.number("memory", "total")
    if not is_jetson(facts) or total is None:
        return None
    words = [word for word in ("Thor", "Xavier", "Orin") if word.lower() in model.lower()]
    if words != ["Thor"]:  # there is one kind of it, and NVIDIA calls it AGX as well
        words += [word for word in ("AGX", "NX", "Nano") if re.search(rf"\b{word}\b", model, re.I)]
    near = [
        target
        for target in targets
        if target.jetpack == jetpack
        and words
        and all(re.search(rf"\b{word}\b", target.summary, re.I) for word in words)
        and not target.refused
        and total <= target.memory
    ]
    return min(near, key=lambda target: target.memory, default=None)


def _tensorrt(facts: Facts, target: TargetNeeds) -> tuple[str, ...]:
    version = facts.text(TENSORRT, "python", "version")
    if not version:
        other = facts.text(TENSORRT, "system", "version") or facts.text(TENSORRT, "version")
        return (f"TensorRT {other} is not for this Python" if other else "no TensorRT",)
    if not within(version, target.versions):
        span = " to ".join(dict.fromkeys(target.versions))
        return (f"TensorRT is {version}, not {span}",)
    return ()


def _gpu(facts: Facts, target: TargetNeeds) -> tuple[str, ...]:
    here = facts.capabilities()
    if not here:
        return ("no GPU that CUDA finds",)
    if target.capabilities and not set(here) & set(target.capabilities):
        return (f"compute capability {', '.join(here)}, not {' or '.join(target.capabilities)}",)
    return ()


def _module(facts: Facts, target: TargetNeeds) -> tuple[str, ...]:
    """A Jetson's target means a module: less memory than it has will not do."""
    total = facts.number("memory", "total")
    if target.jetpack and not is_jetson(facts):
        return ("no Jetson",)
    if total is not None and target.memory and total < _SHOWN * target.memory:
        return (f"{mebibytes(total)} of memory, not {mebibytes(target.memory)}",)
    return ()


def _rtx(facts: Facts, target: TargetNeeds) -> tuple[str, ...]:
    version = facts.package("tensorrt-rtx-cu13-bindings")
    if not version or not facts.package("tensorrt-rtx-cu13-libs"):
        return ("no TensorRT-RTX",)
    if not within(version, target.versions):
        return (f"TensorRT-RTX is {version}, not {target.versions[0]}",)
    return ()


def _interpreter(facts: Facts, target: TargetNeeds) -> tuple[str, ...]:
    if target.runtime == "openvino":
        if facts.text("system", "machine") not in ("x86_64", "AMD64"):
            return ("no x86 processor",)
        return () if facts.package("openvino") else ("no OpenVINO",)
    if target.runtime == "qonnx":
        return () if facts.package("qonnx") else ("no qonnx (it verifies, and scores no images)",)
    version = facts.text("onnxruntime", "version")
    if facts.text("onnxruntime", "error"):
        return ("ONNX Runtime is broken",)
    if not version:
        return ("no ONNX Runtime yet",)
    if numbers(version) < ONNXRUNTIME:
        return (f"ONNX Runtime {version} is too old",)
    return ()
