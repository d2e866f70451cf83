"""NVIDIA's part: the GPU, TensorRT, and whether a bundle's engine loads here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from .facts import Facts, mebibytes, numbers, within
from .finding import FAULT, NOTE, OK, WARNING, Finding
from .jetpack import jetpack_of
from .needs import BundleNeeds, TargetNeeds

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
_ENVIRONMENT = (
    "make the environment again, with the system's packages: python3 -m venv --system-site-packages"
)
_ELSEWHERE = "take it to the device that the target names: qmdd deploy"
_RTX_PACKAGES = ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs", "nvidia-cuda-runtime")


def is_jetson(facts: Facts) -> bool:
    """Whether it is one of NVIDIA's modules."""
    return bool(facts.text("jetson", "l4t")) or "jetson" in facts.text("jetson", "model").lower()


def judge_gpu(facts: Facts, wanted: TargetNeeds | None) -> Iterator[Finding]:
    """GPUs and CUDA. ``wanted``: a target that has an engine, where one is asked for."""
    error, gpus = facts.text("cuda", "error"), facts.gpus()
    for gpu in gpus:
        capability = gpu.text("gpu", "compute_capability")
        memory = mebibytes(gpu.number("gpu", "memory") or 0)
        told = f"{gpu.text('gpu', 'name')}, compute capability {capability}, {memory}"
        yield Finding("GPU", OK, told)
    if not gpus:
        reason = f"none that CUDA finds{f' ({error})' if error else ''}"
        if is_jetson(facts):
            do = "sudo usermod -aG video,render $USER, then log in again; in a container: "
            yield Finding("GPU", FAULT, reason, f"{do}docker run --runtime nvidia")
        elif wanted is not None and wanted.backend == TENSORRT:
            do = _ELSEWHERE if wanted.jetpack else "install NVIDIA's driver"
            yield Finding("GPU", FAULT, reason, do)
        elif wanted is not None:
            found = f"{reason}: engines are built here, not run"
            yield Finding("GPU", NOTE, found)
        elif error:
            do = "install NVIDIA's driver again, one that fits its kernel module: nvidia-smi"
            yield Finding("GPU", WARNING, reason, do)
    elif wanted is not None and wanted.capabilities:
        here = facts.capabilities()
        if here and not set(here) & set(wanted.capabilities):
            needed = " or ".join(wanted.capabilities)
            state = FAULT if wanted.backend == TENSORRT else WARNING
            found = f"{wanted.name} is for compute capability {needed}, here is {', '.join(here)}"
            yield Finding("GPU", state, found, "choose another --target: qmdd targets")


def judge_tensorrt(facts: Facts, wanted: TargetNeeds | None) -> Iterator[Finding]:
    """TensorRT, as far as it is expected here: on a Jetson, or for ``wanted``."""
    if wanted is not None and wanted.backend == RTX:
        yield from _judge_rtx(facts, wanted)
        return
    here = facts.text(TENSORRT, "python", "version")
    system = facts.text(TENSORRT, "system", "version")
    error, library = facts.text(TENSORRT, "python", "error"), facts.text(TENSORRT, "version")
    asked = wanted is not None and wanted.backend == TENSORRT
    if not (asked or is_jetson(facts) or here or error or system or library):
        return
    missing = FAULT if asked or (is_jetson(facts) and wanted is None) else NOTE
    if error:
        do = "sudo apt install --reinstall python3-libnvinfer libnvinfer-bin"
        yield Finding("TensorRT", missing, f"installed, but broken: {error}", do)
    elif here:
        yield Finding("TensorRT", OK, f"{here}{_trtexec(facts)}")
        if library and numbers(library)[:3] != numbers(here)[:3]:
            do = "remove the one that is not JetPack's: pip uninstall tensorrt"
            found = f"Python's is {here}, the library that lies here {library}"
            yield Finding("TensorRT", WARNING, found, do)
    elif system and facts.flag("python", "environment") and not _sees_system(facts):
        found = f"{system}, but for the system's Python: this environment does not see its packages"
        yield Finding("TensorRT", missing, found, _ENVIRONMENT)
    elif system:
        found = f"{system}, but for {facts.text('python', 'system')}, another Python"
        interpreter = shlex.quote(facts.text("python", "system"))
        do = f"make the environment with that one: {interpreter} -m venv "
        yield Finding("TensorRT", missing, found, f"{do}--system-site-packages")
    elif library:
        do = "sudo apt install python3-libnvinfer"
        yield Finding("TensorRT", missing, f"{library}, without its Python package", do)
    else:
        do = "sudo apt install nvidia-jetpack" if is_jetson(facts) else "pip install tensorrt"
        if wanted is not None and wanted.jetpack and not is_jetson(facts):
            do = _ELSEWHERE
        yield Finding("TensorRT", missing, "not installed", do)
    version = here or system or library
    if asked and wanted is not None and version and not within(version, wanted.versions):
        span = " to ".join(dict.fromkeys(wanted.versions))
        found = f"{version} here, {wanted.name} is for {span}"
        do = "export with the --target of this JetPack or release: qmdd doctor lists what fits"
        yield Finding("TensorRT", FAULT, found, do)


def _sees_system(facts: Facts) -> bool:
    return facts.flag("python", "system_packages") is not False


def _trtexec(facts: Facts) -> str:
    path = facts.text(TENSORRT, "trtexec")
    return f"; {path}" if path else ""


def _judge_rtx(facts: Facts, wanted: TargetNeeds) -> Iterator[Finding]:
    missing = [name for name in _RTX_PACKAGES if not facts.package(name)]
    version = facts.package(_RTX_PACKAGES[0])
    do = "pip install 'qmdd[rtx]'"
    if missing:
        yield Finding("TensorRT-RTX", FAULT, f"not installed: {', '.join(missing)}", do)
    elif not within(version, wanted.versions):
        span = " to ".join(dict.fromkeys(wanted.versions))
        found = f"{version} here, {wanted.name} is for {span}"
        yield Finding("TensorRT-RTX", FAULT, found, do)
    else:
        yield Finding("TensorRT-RTX", OK, version)


def judge_engine(facts: Facts, bundle: BundleNeeds) -> Iterator[Finding]:
    """The engine that lies in a bundle: by the same five conditions as when it is loaded."""
    engine = bundle.engine
    if engine is None:
        return
    here = facts.text(TENSORRT, "python", "version") or facts.text(TENSORRT, "version")
    if engine.backend == RTX:
        here = facts.package(_RTX_PACKAGES[0])
    same = len(numbers(here)) if here else 0
    pairs = (
        (f"for {engine.backend}", engine.version, here, numbers(engine.version)[:same]),
        ("for system", " or ".join(engine.systems), facts.text("system", "system"), None),
        ("for architecture", engine.machine, _architecture(facts), None),
    )
    faults = []
    for what, built, found, compared in pairs:
        fits = numbers(found) == compared if compared is not None else found in built.split(" or ")
        if found and not fits:
            faults.append(f"built {what} {built}, here is {found}")
    capabilities = facts.capabilities()
    if capabilities and not set(capabilities) & set(engine.compute_capabilities):
        built = " or ".join(engine.compute_capabilities)
        faults.append(f"built for compute capability {built}, here is {', '.join(capabilities)}")
    if faults:
        do = f"qmdd build {shlex.quote(bundle.path)}"
        yield Finding("engine", FAULT, "; ".join(faults), do)
    else:
        yield Finding("engine", OK, f"{engine.backend} {engine.version}, {engine.target}")


def _architecture(facts: Facts) -> str:
    machine = facts.text("system", "machine")
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def judge_jetson(facts: Facts) -> Iterator[Finding]:
    """Which module it is, and which JetPack."""
    model, release = facts.text("jetson", "model"), facts.text("jetson", "l4t")
    if not (model or release):
        return
    told = model or "a board of NVIDIA's"
    if is_jetson(facts):
        jetpack = jetpack_of(facts)
        told += f", JetPack {jetpack or 'unknown'}{f' (L4T {release})' if release else ''}"
    yield Finding("device", OK, told)
