"""The machine that something is measured on: its processor, cores, caches, memory and system."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_CACHE = "/sys/devices/system/cpu/cpu0/cache/index{level}/size"
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: Instruction sets that decide how fast integers and floats are multiplied, as Linux names them.
INSTRUCTIONS = (
    "sse4_2",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What is known of this machine; 0 or empty where the system does not tell.

    Attributes:
        processor: its name.
        cores: that this process may use.
        instructions: those of :data:`INSTRUCTIONS` that it has.
        cache_bytes: second-level cache of a core.
        memory_bytes: of the whole machine.
        system: operating system and architecture.
    """

    processor: str
    cores: int
    instructions: tuple[str, ...]
    cache_bytes: int
    memory_bytes: int
    system: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**dataclasses.asdict(self), "instructions": list(self.instructions)}


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        processor=processor(),
        cores=usable_cores(),
        instructions=_instructions(),
        cache_bytes=cache_bytes(),
        memory_bytes=memory_bytes(),
        system=f"{platform.system()} {platform.machine()}",
    )


def processor() -> str:
    """The processor's name."""
    names = _cpuinfo("model name")
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_bytes(level: int = 2) -> int:
    """Size of a core's cache of that level (2 or 3), as the system states it; 0 if it does not."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        text = Path(_CACHE.format(level=level)).read_text(encoding="ascii").strip()
        return int(text[:-1]) * _UNITS[text[-1]]
    return 0


def version_of(package: str) -> str:
    """The installed version of ``package`` without its local part; empty if it is not installed."""
    from importlib import metadata  # it costs time, and sessions import this module

    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def _instructions() -> tuple[str, ...]:
    lines = _cpuinfo("flags") or _cpuinfo("Features")
    have = set(lines[0].split()) if lines else set()
    return tuple(name for name in INSTRUCTIONS if name in have)


def _cpuinfo(field: str) -> list[str]:
    """Values of ``field``, one for each core that lists it."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(field)]


def memory_bytes() -> int:
    """Memory of the whole machine in bytes, 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
