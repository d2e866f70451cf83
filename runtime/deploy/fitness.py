"""Whether a device can run a bundle, judged by its facts before anything is copied."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from typing import Any

from ..bundle import Bundle
from ..engine import EngineRecord, Machine, refusal
from ..errors import DeployError
from ..sessions import OPENVINO, RUNTIMES
from ..tensorrt_api import version_of

#: The oldest Python that qmdd runs on.
PYTHON = (3, 10)
#: A device's clock may be off by so much, in seconds, before anybody is told.
CLOCK = 300.0


@dataclasses.dataclass(frozen=True)
class EngineNeed:
    """What a target's engine needs of a device (the target table is the exporter's).

    Attributes:
        backend: ``tensorrt`` or ``tensorrt_rtx``.
        versions: lowest and highest TensorRT, both included.
        compute_capabilities: of GPUs, such as ``8.7``; empty for any.
    """

    backend: str
    versions: tuple[str, str]
    compute_capabilities: tuple[str, ...]


def _part(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def check_python(facts: Mapping[str, Any], python: str) -> None:
    """Raise :class:`DeployError` if the device's ``python`` cannot make qmdd's environment."""
    told = _part(facts, "python")
    version = str(told.get("version", "0"))
    if version_of(version)[:2] < PYTHON:
        others = told.get("others") or {}
        newer = [path for number, path in others.items() if version_of(number)[:2] >= PYTHON]
        hint = f"--python {newer[-1]}" if newer else "install a newer one and name it with --python"
        raise DeployError(f"its {python} is Python {version}, qmdd needs 3.10 or newer; {hint}")
    if not (told.get("venv") and told.get("ensurepip")):
        raise DeployError(
            f"its {python} cannot make environments (venv or ensurepip is missing); on Debian and "
            "Ubuntu: sudo apt install python3-venv"
        )


def extras_for(
    bundle: Bundle, facts: Mapping[str, Any], need: EngineNeed | None
) -> tuple[str, ...]:
    """The extras of qmdd that run ``bundle`` on a device with such ``facts``.

    Args:
        bundle: an opened bundle.
        facts: the device's.
        need: of the bundle's target, ``None`` if the model itself is run.

    Raises:
        DeployError: the device cannot run it; why, and what to do.
    """
    machine = str(_part(facts, "system").get("machine", ""))
    if bundle.runtime not in RUNTIMES:
        raise DeployError(
            f"the bundle is lowered for {bundle.target}, which scores no images; export the "
            "checkpoint for the device's own target"
        )
    if bundle.runtime == OPENVINO and machine not in ("x86_64", "AMD64"):
        raise DeployError(
            f"the bundle is for OpenVINO on x86, the device is {machine}; export with --target cpu"
        )
    if need is None:
        return ("openvino",) if bundle.runtime == OPENVINO else ("runtime",)
    _check_gpu(bundle, facts, need)
    if need.backend == "tensorrt":
        _check_tensorrt(bundle, facts, need)
        return ("runtime",)
    return ("runtime", "rtx")


def _check_gpu(bundle: Bundle, facts: Mapping[str, Any], need: EngineNeed) -> None:
    gpus = _part(facts, "cuda").get("gpus") or []
    found = [str(gpu.get("compute_capability")) for gpu in gpus if isinstance(gpu, Mapping)]
    wanted = need.compute_capabilities
    if found and (not wanted or found[0] in wanted):
        return
    has = f"has compute capability {found[0]}" if found else "shows no NVIDIA GPU"
    raise DeployError(
        f"the bundle is for {bundle.target} (compute capability {' or '.join(wanted) or 'any'}), "
        f"the device {has}; export for the device's own target, or --runtime onnxruntime runs "
        "the model on its CPU"
    )


def tensorrt_of(facts: Mapping[str, Any]) -> str | None:
    """Version of the TensorRT that the device's Python sees, ``None`` without one."""
    version = _part(_part(facts, "tensorrt"), "python").get("version")
    return str(version) if version else None


def _check_tensorrt(bundle: Bundle, facts: Mapping[str, Any], need: EngineNeed) -> None:
    told = _part(facts, "tensorrt")
    found = tensorrt_of(facts)
    low, high = need.versions
    if found is None:
        if _part(told, "system").get("version"):
            system = _part(facts, "python").get("system") or "/usr/bin/python3"
            raise DeployError(
                f"TensorRT there belongs to {system}, not to the Python that was asked; deploy "
                f"with --python {system}"
            )
        raise DeployError(
            f"the bundle is for {bundle.target}, and the device's Python has no TensorRT; on a "
            "Jetson: sudo apt install python3-libnvinfer"
        )
    numbers = version_of(found)
    if not version_of(low) <= numbers[: len(version_of(low))] or not (
        numbers[: len(version_of(high))] <= version_of(high)
    ):
        only = low if low == high else f"{low} to {high}"
        raise DeployError(
            f"the bundle is for {bundle.target} (TensorRT {only}), the device has TensorRT {found};"
            " export for the JetPack that it has"
        )


def engine_fault(record: EngineRecord, facts: Mapping[str, Any], need: EngineNeed) -> str | None:
    """Why a device with such ``facts`` cannot load the engine that ``record`` tells of."""
    system = _part(facts, "system")
    gpus = _part(facts, "cuda").get("gpus") or [{}]
    device = Machine(
        backend=need.backend,
        # TensorRT for RTX comes with the environment, at the version that qmdd asks for.
        version=tensorrt_of(facts) or record.version,
        compute_capability=str(gpus[0].get("compute_capability") or ""),
        system=str(system.get("system") or ""),
        machine=str(system.get("machine") or ""),
    )
    reason = refusal(record, device)
    return None if reason is None else reason.partition(";")[0]


def native_platform(facts: Mapping[str, Any]) -> str | None:
    """Platform of the native operators' library if it, built here, runs there; ``None`` if not."""
    system = _part(facts, "system")
    machine = platform.machine()
    name, version = platform.libc_ver()
    theirs = str(system.get("libc_version") or "0")
    if platform.system() != "Linux" or system.get("machine") != machine or name != "glibc":
        return None
    if system.get("libc") != name or version_of(theirs) < version_of(version):
        return None
    return f"linux_{machine}"


def clock_warning(there: float, here: float) -> str | None:
    """What to say if the device's clock (seconds of Unix time) is far from this machine's."""
    off = there - here
    if abs(off) <= CLOCK:
        return None
    days, rest = divmod(int(abs(off)), 86400)
    amount = f"{days} days" if days else f"{rest // 60} minutes"
    return (
        f"its clock is {amount} {'ahead' if off > 0 else 'behind'}: downloads fail where "
        "certificates look expired; set it: sudo timedatectl set-ntp true"
    )
