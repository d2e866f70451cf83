"""The facts of a machine, as JSON: what decides whether a bundle runs on it, and how well.

This file stands alone: the standard library only, in syntax that Python 3.8 reads, so that its
source can be sent to a device on which nothing of ours is installed (``python3 -I - FOLDER``). It
judges nothing; :mod:`qmdd.runtime.doctor` does.

Whatever it meets, it goes on: a section that fails is empty and named under ``failed``. What may
crash or hang (importing a broken installation, asking a GPU) runs in a process of its own with a
time limit.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

#: The form of the facts; raised when one changes its meaning.
FORM = 1
#: Seconds that a program may take, and one that imports a large library.
SECONDS, SECONDS_TO_IMPORT = 10.0, 60.0
#: No program's output and no file is read beyond this many bytes.
MOST_BYTES = 1 << 16

PACKAGES = (
    *("qmdd", "numpy", "onnxruntime", "onnxruntime-gpu", "pillow", "safetensors", "click", "rich"),
    *("av", "openvino", "qonnx", "onnx", "torch", "tensorrt", "tensorrt-rtx-cu13-bindings"),
    *("tensorrt-rtx-cu13-libs", "nvidia-cuda-runtime", "pip", "setuptools"),
)
#: Instruction sets that decide how fast integers are multiplied, as Linux names them.
INSTRUCTIONS = (
    *("sse4_2", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"),
    *("amx_bf16", "asimd", "asimddp", "i8mm", "sve"),
)
#: Where a Jetson, or a workstation, has libraries of NVIDIA's.
LIBRARY_FOLDERS = (
    *("/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"),
    *("/usr/local/lib", "/usr/local/cuda/lib64", "/opt/tensorrt/lib", "/usr/local/tensorrt/lib"),
)
TRTEXEC = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")

#: A folder that happens to be the current one must not stand in for an installed package.
_NOT_FROM_HERE = "import sys; sys.path[:] = [place for place in sys.path if place]\n"
_IMPORT = """
import json
try:
    found = __import__(sys.argv[1])
    told = {"version": str(getattr(found, "__version__", ""))}
    if hasattr(found, "get_available_providers"):
        told["providers"] = list(found.get_available_providers())
except ModuleNotFoundError as error:
    told = {} if error.name == sys.argv[1] else {"error": str(error)}
except BaseException as error:
    told = {"error": type(error).__name__ + ": " + str(error)}
print("\\n" + json.dumps(told))
"""

#: The CUDA driver's and runtime's own interfaces: Driver API, Device Management; Runtime API.
_CUDA = """
import ctypes, glob, json
told, number = {"gpus": []}, ctypes.c_int()
def version(value):
    return "%d.%d" % (value // 1000, value % 1000 // 10)
def load(*names):
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            pass
runtime = load("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0",
               "/usr/local/cuda/lib64/libcudart.so")
if runtime and not runtime.cudaRuntimeGetVersion(ctypes.byref(number)):
    told["runtime"] = version(number.value)
driver = load("libcuda.so.1", "libcuda.so")
if driver:
    if not driver.cuDriverGetVersion(ctypes.byref(number)):
        told["driver"] = version(number.value)
    code = driver.cuInit(0)
    if code:
        told["error"] = "cuInit gives error %d" % code
    elif not driver.cuDeviceGetCount(ctypes.byref(number)):
        for index in range(min(number.value, 64)):
            device, name, size = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
            driver.cuDeviceGet(ctypes.byref(device), index)
            driver.cuDeviceGetName(name, 256, device)
            driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
            parts = []
            for attribute in (75, 76):
                driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
                parts.append(str(number.value))
            told["gpus"].append({"name": name.value.decode(errors="replace"),
                                 "compute_capability": ".".join(parts), "memory": size.value})
print("\\n" + json.dumps(told))
"""


def collect(folder: str | None = None) -> dict[str, Any]:
    """The facts of this machine; nothing raises.

    Args:
        folder: where a bundle is to lie; its disk is measured. Default: the current folder.

    Returns:
        JSON data, a dict a section: ``python``, ``system``, ``processor``, ``memory``, ``disk``,
        ``packages``, ``onnxruntime``, ``tensorrt``, ``cuda``, ``jetson``, ``power``, ``libraries``,
        ``clock``, ``user``, ``tools``. Sizes are bytes, temperatures degrees Celsius. What is not
        known is left out. ``failed`` names the sections that broke off, and how.
    """
    facts: dict[str, Any] = {"form": FORM}
    failed: dict[str, str] = {}
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "python": _python,
        "system": _system,
        "processor": _processor,
        "memory": _memory,
        "disk": lambda: _disk(folder or "."),
        "packages": _packages,
        "onnxruntime": lambda: _imported(sys.executable, "onnxruntime"),
        "tensorrt": _tensorrt,
        "cuda": _cuda,
        "jetson": _jetson,
        "power": _power,
        "libraries": _libraries,
        "clock": _clock,
        "user": _user,
        "tools": _tools,
    }
    for name, section in sections.items():
        try:
            facts[name] = section()
        except Exception as error:  # noqa: BLE001 - one fact fewer is better than no facts
            facts[name] = {}
            failed[name] = f"{type(error).__name__}: {error}"
    facts["failed"] = failed
    return facts


def _run(command: Sequence[str], seconds: float = SECONDS) -> tuple[int | None, str]:
    """Exit code and output of a program; ``None`` if it is not there or took too long."""
    # ONNX Runtime reports to its makers as soon as it is imported.
    environment = dict(os.environ, LC_ALL="C", LANG="C", ORT_DISABLE_TELEMETRY="1")
    try:
        process = subprocess.Popen(  # noqa: S603 - the caller's own list, no shell
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError):
        return None, ""
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        data = process.stdout.read(MOST_BYTES) if process.stdout else b""
        if len(data) == MOST_BYTES:
            _kill(process)
        code = process.wait()
    finally:
        timer.cancel()
        _kill(process)
        if process.stdout:
            process.stdout.close()
    return (None if late.is_set() else code), data.decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process, and whatever it started."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (OSError, AttributeError):
            process.kill()


def _read(path: str) -> str:
    """The beginning of a text file, empty if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _child(python: str, code: str, *arguments: str) -> dict[str, Any]:
    """What a child process of Python's tells on its last line: a JSON object."""
    code_or_none, text = _run([python, "-c", _NOT_FROM_HERE + code, *arguments], SECONDS_TO_IMPORT)
    try:
        told = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        told = None
    if isinstance(told, dict):
        return told
    if code_or_none is None:
        return {"error": f"does not answer within {SECONDS_TO_IMPORT:.0f} s"}
    return {"error": f"crashes while it is loaded (exit code {code_or_none})"}


def _imported(python: str, module: str) -> dict[str, Any]:
    """``version``, or ``error``; empty where the module is not installed at all."""
    return _child(python, _IMPORT, module) if python else {}


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _python() -> dict[str, Any]:
    environment = sys.prefix != sys.base_prefix
    settings = _read(os.path.join(sys.prefix, "pyvenv.cfg")).lower()
    system = _system_python()
    found: dict[str, Any] = {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "environment": environment,
        "system_packages": bool(
            not environment or re.search(r"include-system-site-packages\s*=\s*true", settings)
        ),
        "venv": _has_module("venv"),
        "ensurepip": _has_module("ensurepip"),
        "pip": _has_module("pip"),
        "system": system,
        "others": {},
    }
    for minor in range(10, 21):
        path = shutil.which(f"python3.{minor}")
        if path:
            found["others"][f"3.{minor}"] = path
    return found


def _system_python() -> str:
    """The interpreter that the system's packages belong to."""
    return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else ""


def _system() -> dict[str, Any]:
    release = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', _read("/etc/os-release"), re.M))
    name, version = platform.libc_ver()
    if not name and glob.glob("/lib/ld-musl-*"):
        name = "musl"
    try:  # what the running interpreter is linked to: certain, where it is told
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, AttributeError, OSError):
        told = ""
    if told.startswith("glibc "):
        name, version = "glibc", told[6:]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "libc": name,
        "libc_version": version,
        "distribution": release.get("PRETTY_NAME", ""),
        "id": release.get("ID", ""),
        "version": release.get("VERSION_ID", ""),
        "container": os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"),
    }


def _processor() -> dict[str, Any]:
    text = _read("/proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    have = set(flags.group(1).split()) if flags else set()
    told = name.group(1) if name else ""
    if not told:
        listed = re.search(r"^Model name:\s*(.+)$", _run(["lscpu"])[1], re.M)
        told = listed.group(1).strip() if listed else platform.processor()
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        cores = os.cpu_count() or 0
    return {
        "name": told or platform.machine(),
        "cores": cores,
        "instructions": [flag for flag in INSTRUCTIONS if flag in have],
    }


def _memory() -> dict[str, Any]:
    held = dict(re.findall(r"^(\w+):\s*(\d+) kB$", _read("/proc/meminfo"), re.M))
    names = {
        "total": "MemTotal",
        "available": "MemAvailable",
        "swap": "SwapTotal",
        "swap_free": "SwapFree",
    }
    found = {name: int(held[key]) << 10 for name, key in names.items() if key in held}
    limit = _read("/sys/fs/cgroup/memory.max") or _read(
        "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    )
    if limit.isdigit() and int(limit) < found.get("total", 0):
        found["limit"] = int(limit)  # of a container
    return found


def _disk(folder: str) -> dict[str, Any]:
    place = os.path.abspath(folder)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    held = os.statvfs(place)
    return {
        "folder": place,
        "total": held.f_blocks * held.f_frsize,
        "free": held.f_bavail * held.f_frsize,
        # Some file systems have no limit of files, and say 0.
        "files_free": held.f_favail if held.f_files else -1,
        "writable": os.access(place, os.W_OK | os.X_OK),
    }


def _packages() -> dict[str, Any]:
    from importlib import metadata

    found = {}
    for package in PACKAGES:
        try:
            found[package] = str(metadata.version(package))
        except Exception:  # noqa: BLE001, S112 - not there, or its record is damaged
            continue
    return found


def _tensorrt() -> dict[str, Any]:
    found: dict[str, Any] = {}
    here = _imported(sys.executable, "tensorrt") if _has_module("tensorrt") else {}
    if here:
        found["python"] = here
    system = _system_python()
    if system and os.path.realpath(system) != os.path.realpath(sys.executable):
        there = _imported(system, "tensorrt")
        if there:
            found["system"] = there
    libraries = _nvinfer()
    if libraries:
        found["libraries"] = libraries
        versions = [re.search(r"\.so\.(\d+(?:\.\d+)+)$", path) for path in libraries]
        told = [match.group(1) for match in versions if match]
        if told:
            found["version"] = max(told, key=_numbers)
    trtexec = shutil.which("trtexec") or next((p for p in TRTEXEC if os.access(p, os.X_OK)), "")
    if trtexec:
        found["trtexec"] = trtexec
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _nvinfer() -> list[str]:
    """Files of TensorRT's library, links followed, each once."""
    folders = list(LIBRARY_FOLDERS)
    folders += [place for place in os.environ.get("LD_LIBRARY_PATH", "").split(":") if place]
    found = []
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "libnvinfer.so*"))):
            real = os.path.realpath(path)
            if real not in found and os.path.isfile(real):
                found.append(real)
    return found[:20]


def _cuda() -> dict[str, Any]:
    found = _child(sys.executable, _CUDA)
    if not found.get("gpus"):
        query = "--query-gpu=name,compute_cap,memory.total"
        _, text = _run(["nvidia-smi", query, "--format=csv,noheader,nounits"])
        rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()[:64]]
        found["gpus"] = [
            {"name": row[0], "compute_capability": row[1], "memory": int(row[2]) << 20}
            for row in rows
            if len(row) == 3 and row[2].isdigit()
        ]
    return found


def _jetson() -> dict[str, Any]:
    found = {}
    model = _read("/proc/device-tree/model")
    if model:
        found["model"] = model  # a Raspberry Pi has one, too
    release = re.search(
        r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", _read("/etc/nv_tegra_release")
    )
    if release:
        found["l4t"] = f"{release.group(1)}.{release.group(2)}"
    for name, package in (("jetpack", "nvidia-jetpack"), ("core", "nvidia-l4t-core")):
        code, version = _run(["dpkg-query", "-W", "-f", "${Version}", package])
        if not code and version:
            found[name] = version.strip()
    return found


def _power() -> dict[str, Any]:
    found: dict[str, Any] = {}
    modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _read("/etc/nvpmodel.conf"))
    if modes:
        found["modes"] = dict(modes)
    _, told = _run(["nvpmodel", "-q"])
    asked = re.search(r"NV Power Mode:\s*(\S+)\s*\n\s*(\d+)", told)
    kept = re.search(r"pmode:(\d+)", _read("/var/lib/nvpmodel/status"))
    if asked:
        found["mode"], found["number"] = asked.group(1), int(asked.group(2))
    elif kept:
        found["number"] = int(kept.group(1))
        if str(found["number"]) in found.get("modes", {}):
            found["mode"] = found["modes"][str(found["number"])]
    clocks = "/sys/devices/system/cpu/cpu0/cpufreq/"
    names = ("scaling_governor", "scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
    for name in names:
        text = _read(clocks + name)
        if text:
            found[name] = int(text) if text.isdigit() else text
    degrees = [_read(path) for path in sorted(glob.glob("/sys/class/thermal/thermal_zone*/temp"))]
    warm = [int(text) / 1000 for text in degrees if re.match(r"\d{1,6}$", text)]
    if warm:
        found["celsius"] = max(warm)
    _, throttled = _run(["vcgencmd", "get_throttled"])  # of a Raspberry Pi
    bits = re.search(r"throttled=(0x[0-9a-fA-F]+)", throttled)
    if bits:
        found["throttled"] = int(bits.group(1), 16)
    return found


def _libraries() -> dict[str, Any]:
    """Libraries that a library needs and the loader does not find, by the needing one's path."""
    looked_at = _nvinfer()[:2]
    for package, pattern in (
        ("onnxruntime", "capi/onnxruntime_pybind11_state*.so"),
        ("tensorrt", "*.so"),
    ):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            looked_at += sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))[:4]
    missing = {}
    for path in looked_at:
        _, text = _run(["ldd", path])
        lacks = re.findall(r"^\s*(\S+) => not found", text, re.M)
        if lacks:
            missing[path] = lacks[:20]
    return {"missing": missing}


def _clock() -> dict[str, Any]:
    found: dict[str, Any] = {"unix": time.time()}
    _, told = _run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if told.strip() in ("yes", "no"):
        found["synchronised"] = told.strip() == "yes"
    return found


def _user() -> dict[str, Any]:
    mask = os.umask(0o077)
    os.umask(mask)
    home = os.path.expanduser("~")
    return {
        "id": os.getuid(),
        "home": home,
        "home_writable": os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK),
        "umask": f"{mask:04o}",
        "groups": list(os.getgroups())[:100],
    }


def _tools() -> dict[str, Any]:
    found = {}
    for name in ("c++", "g++", "clang++", "cmake", "make", "systemctl", "docker"):
        path = shutil.which(name)
        if path:
            found[name] = path
    if not _has_module("qmdd"):
        return found
    native = importlib.util.find_spec("qmdd.runtime.native")
    for folder in (native.submodule_search_locations or ()) if native else ():
        path = os.path.join(folder, "qmdd_native.so")
        if os.path.isfile(path):
            found["qmdd_native"] = path
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(collect(sys.argv[1] if len(sys.argv) > 1 else None)) + "\n")
