"""Python and what is installed for it: can a bundle's runtime be put there, and does it load."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from .facts import Facts, numbers
from .finding import FAULT, NOTE, OK, WARNING, Finding
from .needs import BundleNeeds

#: The least versions; a test compares the first two with pyproject.toml.
PYTHON, ONNXRUNTIME = (3, 10), (1, 23)
#: The oldest C library that the wheels of numpy, Pillow and ONNX Runtime are made for.
GLIBC = (2, 28)
#: Processors that ONNX Runtime has wheels for.
MACHINES = ("x86_64", "aarch64", "AMD64", "arm64")
#: What `detect` needs besides ONNX Runtime.
_RUNTIME = ("numpy", "pillow", "safetensors")
_INSTALL = "pip install 'qmdd[runtime]'"
_DEPLOYED = "nothing: qmdd deploy installs it"


def judge_python(facts: Facts) -> Iterator[Finding]:
    """The interpreter and its means to make an environment."""
    version = facts.text("python", "version")
    short = ".".join(map(str, numbers(version)[:2]))  # of a text that ends in a command: nothing
    wanted = ".".join(map(str, PYTHON))
    if not version:
        yield Finding("Python", FAULT, "none found", f"install Python {wanted} or newer")
        return
    if numbers(version) < PYTHON:
        others = [str(name) for name in facts.table("python", "others")]
        newest = max((name for name in others if numbers(name) >= PYTHON), key=numbers, default="")
        there = shlex.quote(facts.text("python", "others", newest))
        do = f"take the newer one that is there: {there}"
        if not newest:
            do = f"install a newer one; Debian and Ubuntu: sudo apt install python{wanted}-venv"
        if facts.text("jetson", "l4t"):
            do += "; this JetPack's TensorRT serves its own Python alone: JetPack 6 has 3.10"
        yield Finding("Python", FAULT, f"{version}, qmdd needs {wanted}", do)
    else:
        yield Finding("Python", OK, f"{version}, {facts.text('python', 'executable')}")
    if facts.number("python", "bits") == 32:
        do = "install a 64-bit system"
        yield Finding("Python", FAULT, "a 32-bit build: ONNX Runtime has none for it", do)
    # Of a prepared environment nobody makes another one.
    lacks = [name for name in ("venv", "ensurepip") if facts.flag("python", name) is False]
    if lacks and not facts.prepared:
        do = f"sudo apt install python{short}-venv"
        yield Finding("venv", FAULT, f"no module {' and '.join(lacks)}: no environment", do)


def judge_system(facts: Facts) -> Iterator[Finding]:
    """Processor architecture and C library: are there wheels for it."""
    machine, libc = facts.text("system", "machine"), facts.text("system", "libc")
    version = facts.text("system", "libc_version")
    name = facts.text("system", "distribution") or facts.text("system", "system")
    told = ", ".join(part for part in (name, machine, f"{libc} {version}".strip()) if part)
    least = ".".join(map(str, GLIBC))
    if machine and machine not in MACHINES:
        do = "install a 64-bit system (Raspberry Pi OS has one)"
        yield Finding("system", FAULT, f"{told}: no ONNX Runtime for {machine}", do)
    elif libc == "musl":
        do = "take a system with glibc: Debian, Ubuntu"
        yield Finding("system", FAULT, f"{told}: no ONNX Runtime for musl", do)
    elif libc == "glibc" and numbers(version) and numbers(version) < GLIBC:
        do = "install a newer system: Ubuntu 20.04, Debian 10 or later"
        yield Finding("system", FAULT, f"{told}: the wheels need glibc {least}", do)
    else:
        yield Finding("system", OK, told or "unknown")
    processor = facts.text("processor", "name")
    if processor:
        cores = int(facts.number("processor", "cores") or 0)
        found = ", ".join(facts.texts("processor", "instructions")) or "no fast integer products"
        yield Finding("processor", OK, f"{processor}, {cores} cores: {found}")


def judge_runtime(facts: Facts, bundle: BundleNeeds | None) -> Iterator[Finding]:
    """ONNX Runtime and what stands beside it."""
    error = facts.text("onnxruntime", "error")
    version = facts.text("onnxruntime", "version")
    least = ".".join(map(str, ONNXRUNTIME))
    if error:
        do = f"pip install --force-reinstall onnxruntime; {_libraries_hint(facts)}".rstrip("; ")
        yield Finding("ONNX Runtime", FAULT, f"installed, but broken: {error}", do)
    elif not version and not facts.prepared:
        yield Finding("ONNX Runtime", NOTE, "not installed yet", _DEPLOYED)
    elif not version:
        yield Finding("ONNX Runtime", FAULT, "not installed", _INSTALL)
    elif numbers(version) < ONNXRUNTIME:
        do = f"pip install --upgrade 'onnxruntime>={least}'"
        yield Finding("ONNX Runtime", FAULT, f"{version}, qmdd needs {least}", do)
    else:
        providers = ", ".join(
            name.removesuffix("ExecutionProvider")
            for name in facts.texts("onnxruntime", "providers")
        )
        yield Finding("ONNX Runtime", OK, f"{version}: {providers or 'no provider is told'}")
    missing = [name for name in _RUNTIME if not facts.package(name)]
    if missing and facts.prepared:
        yield Finding("packages", FAULT, f"not installed: {', '.join(missing)}", _INSTALL)
    for path in facts.table("libraries", "missing"):
        lacks = facts.texts("libraries", "missing", path)[:5]
        if lacks:
            do = f"install the package that holds it: apt-file search {shlex.quote(lacks[0])}"
            found = f"{str(path)[-120:]} does not find {', '.join(lacks)}"
            yield Finding("libraries", FAULT, found, do)
    if bundle is not None and bundle.native and facts.prepared:
        yield _native(facts)


def _libraries_hint(facts: Facts) -> str:
    return "see libraries" if facts.table("libraries", "missing") else ""


def _native(facts: Facts) -> Finding:
    if facts.text("tools", "qmdd_native"):
        return Finding("native operators", OK, "built")
    do = "install g++, then qmdd from source once more"
    if any(facts.text("tools", name) for name in ("c++", "g++", "clang++")):
        do = "install qmdd from source once more: a C++ compiler is there"
    found = "not built here: this bundle runs its portable model, several times slower"
    return Finding("native operators", WARNING, found, do)
