"""Facts of four machines that are not here, in the form of :mod:`qmdd.runtime.device.probe`.

Made up after NVIDIA's and Raspberry Pi's documentation; no such device took part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from qmdd.exporter.target_needs import all_needs
from qmdd.runtime.device.needs import TargetNeeds

Machine = Callable[..., dict[str, Any]]

NOW = 1_800_000_000.0
GIB = 1 << 30

X86: dict[str, Any] = {
    "form": 1,
    "python": {
        "version": "3.11.9",
        "executable": "/opt/qmdd/env/bin/python",
        "bits": 64,
        "environment": True,
        "system_packages": False,
        "venv": True,
        "ensurepip": True,
        "pip": True,
        "system": "/usr/bin/python3",
        "others": {"3.11": "/usr/bin/python3.11"},
    },
    "system": {
        "system": "Linux",
        "machine": "x86_64",
        "kernel": "6.1.0",
        "libc": "glibc",
        "libc_version": "2.36",
        "distribution": "Debian GNU/Linux 12 (bookworm)",
        "container": False,
    },
    "processor": {"name": "Xeon", "cores": 8, "instructions": ["avx2", "avx512_vnni"]},
    "memory": {"total": 16 * GIB, "available": 12 * GIB, "swap": 0, "swap_free": 0},
    "disk": {
        "folder": "/opt/qmdd",
        "total": 100 * GIB,
        "free": 50 * GIB,
        "files_free": 1_000_000,
        "writable": True,
    },
    "packages": {
        **{"qmdd": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.32.0", "pillow": "13.0.0"},
        **{"safetensors": "0.8.0", "click": "8.5.1", "rich": "15.0.0"},
    },
    "onnxruntime": {"version": "1.32.0", "providers": ["CPUExecutionProvider"]},
    "tensorrt": {},
    "cuda": {"gpus": []},
    "jetson": {},
    "power": {},
    "libraries": {"missing": {}},
    "clock": {"unix": NOW, "synchronised": True},
    "user": {"id": 1000, "home": "/home/edge", "home_writable": True, "umask": "0022"},
    "tools": {"c++": "/usr/bin/c++", "qmdd_native": "/opt/qmdd/env/qmdd_native.so"},
    "failed": {},
}
ORIN_62: dict[str, Any] = {
    "python": {"version": "3.10.12", "system_packages": True, "executable": "/opt/env/bin/python"},
    "system": {
        "machine": "aarch64",
        "libc_version": "2.35",
        "distribution": "Ubuntu 22.04.5 LTS",
    },
    "processor": {"name": "Cortex-A78AE", "cores": 6, "instructions": ["asimd", "asimddp"]},
    "memory": {
        **{"total": int(7.44 * GIB), "available": 5 * GIB},
        **{"swap": int(3.72 * GIB), "swap_free": int(3.72 * GIB)},
    },
    "tensorrt": {
        "python": {"version": "10.3.0"},
        "libraries": ["/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0"],
        "version": "10.3.0",
        "trtexec": "/usr/src/tensorrt/bin/trtexec",
    },
    "cuda": {
        "driver": "12.6",
        "runtime": "12.6",
        "gpus": [{"name": "Orin", "compute_capability": "8.7", "memory": int(7.44 * GIB)}],
    },
    "jetson": {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "jetpack": "6.2+b77",
    },
    "power": {
        "modes": {"0": "15W", "1": "25W", "2": "MAXN_SUPER", "3": "7W"},
        **{"mode": "MAXN_SUPER", "number": 2, "celsius": 51.5},
        "scaling_governor": "schedutil",
        **{"scaling_min_freq": 729_600, "scaling_max_freq": 1_728_000},
    },
}
ORIN_51: dict[str, Any] = {
    **ORIN_62,
    "python": {
        "version": "3.8.10",
        "executable": "/usr/bin/python3",
        "environment": False,
        "system_packages": True,
        "ensurepip": False,
        "others": {},
    },
    "system": {
        "machine": "aarch64",
        "libc_version": "2.31",
        "distribution": "Ubuntu 20.04.6 LTS",
    },
    "packages": None,
    "onnxruntime": None,
    "tensorrt": {
        "python": {"version": "8.5.2.2"},
        "libraries": ["/usr/lib/aarch64-linux-gnu/libnvinfer.so.8.5.2"],
        "version": "8.5.2",
    },
    "jetson": {"model": "NVIDIA Orin NX Developer Kit Jetson", "l4t": "35.4.1"},
}
RASPBERRY: dict[str, Any] = {
    "python": {"version": "3.11.2", "executable": "/home/pi/env/bin/python"},
    "system": {"machine": "aarch64", "distribution": "Debian GNU/Linux 12 (bookworm)"},
    "processor": {"name": "Cortex-A76", "cores": 4, "instructions": ["asimd", "asimddp"]},
    "memory": {"total": 4 * GIB, "available": 3 * GIB, "swap": GIB // 2, "swap_free": GIB // 2},
    "jetson": {"model": "Raspberry Pi 5 Model B Rev 1.0"},
    "power": {"celsius": 60.0, "throttled": 0},
}
MACHINES = {"x86": {}, "orin 6.2": ORIN_62, "orin 5.1": ORIN_51, "raspberry": RASPBERRY}


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A section of ``above`` changes keys; ``None`` in place of a section empties it."""
    found = copy.deepcopy(below)
    for name, section in above.items():
        if section is None:
            found[name] = {}
        elif name in ("tensorrt", "cuda", "jetson", "power"):
            found[name] = copy.deepcopy(section)
        elif isinstance(section, dict):
            found[name] = {**found.get(name, {}), **copy.deepcopy(section)}
    return found


@pytest.fixture(scope="session")
def machine() -> Machine:
    """``machine("orin 6.2", memory={"available": 0})``: its facts, keys of sections changed."""

    def make(name: str = "x86", **changes: dict[str, Any] | None) -> dict[str, Any]:
        found = _laid_over(X86, MACHINES[name])
        for section, keys in changes.items():
            found[section] = {} if keys is None else {**found[section], **keys}
        return found

    return make


@pytest.fixture(scope="session")
def targets() -> list[TargetNeeds]:
    """All that there are."""
    return all_needs()
