"""Memory, disk, power, clock, user: what makes a run fail, or its figures wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .facts import Facts, mebibytes
from .finding import FAULT, NOTE, OK, WARNING, Finding
from .judge_gpu import TENSORRT, is_jetson
from .needs import BundleNeeds, TargetNeeds

_MIB = 1 << 20
#: `qmdd detect` peaks below 100 MiB (docs/detect.md); half of what is free goes to the rest.
LEAST_MEMORY = 192 * _MIB
#: The builder of TensorRT, beside its workspace: about what its libraries alone take on a Jetson.
BUILDER_MEMORY = 1536 * _MIB
#: An environment with the runtime takes 218 MB (measured, x86-64), and as much once more in pip.
ENVIRONMENT = 450 * _MIB
#: Room that must stay.
SPARE = 64 * _MIB
#: A clock that is further off than this breaks TLS and file dates.
CLOCK_SECONDS = 300.0
#: No machine that runs this release has an earlier date: 2026-01-01.
EARLIEST = 1_767_225_600.0
#: A Jetson lowers its clocks from about 99 degrees, a Raspberry Pi from 80.
HOT = 85.0
_CLOCK_DO = "sudo timedatectl set-ntp true; without a network: sudo date -s '2026-01-31 12:00'"


def judge_memory(facts: Facts, wanted: TargetNeeds | None) -> Iterator[Finding]:
    """Memory and swap."""
    total, free = facts.number("memory", "total"), facts.number("memory", "available")
    limit, swap = facts.number("memory", "limit"), facts.number("memory", "swap_free") or 0.0
    if total is None or free is None:
        yield Finding("memory", NOTE, "unknown")
        return
    have = min(free, limit) if limit is not None else free
    told = f"{mebibytes(have)} free of {mebibytes(total)}"
    told += f", at most {mebibytes(limit)} here" if limit is not None else ""
    told += f", {mebibytes(swap)} swap"
    builds = wanted is not None and wanted.backend == TENSORRT
    needs = BUILDER_MEMORY + (wanted.workspace if wanted is not None else 0)
    if have < LEAST_MEMORY:
        do = "end other programs; a container: give it more with --memory"
        yield Finding("memory", FAULT, f"{told}: detect needs {mebibytes(LEAST_MEMORY)}", do)
    elif builds and have + swap < needs:
        do = "end other programs (the desktop: sudo systemctl isolate multi-user.target), add swap"
        found = f"{told}: TensorRT's builder may take {mebibytes(needs)}"
        yield Finding("memory", WARNING, found, do)
    else:
        yield Finding("memory", OK, told)


def judge_disk(facts: Facts, bundle: BundleNeeds | None) -> Iterator[Finding]:
    """Room for the bundle, a second copy of it while it is replaced, and the environment."""
    free, folder = facts.number("disk", "free"), facts.text("disk", "folder")
    if free is None:
        yield Finding("disk", NOTE, "unknown")
        return
    size = bundle.size if bundle is not None else 0
    engine = size if bundle is not None and bundle.engine is None else 0
    needs = SPARE + 2 * (size + engine) + (0 if facts.prepared else ENVIRONMENT)
    told = f"{mebibytes(free)} free in {folder}"
    files = facts.number("disk", "files_free")
    if facts.flag("disk", "writable") is False:
        yield Finding("disk", FAULT, f"{folder}: may not be written to", "choose another folder")
    elif free < needs:
        do = "free some space (docker system prune, apt clean), or choose another folder"
        yield Finding("disk", FAULT, f"{told}, {mebibytes(needs)} are needed", do)
    elif files is not None and 0 <= files < 10_000:
        do = "delete small files, or choose another file system"
        yield Finding("disk", WARNING, f"{told}, but room for {files:,.0f} more files only", do)
    else:
        yield Finding("disk", OK, f"{told}, {mebibytes(needs)} are needed")


def judge_power(facts: Facts) -> Iterator[Finding]:
    """What makes figures differ from day to day: power mode, clocks, heat."""
    mode = facts.text("power", "mode")
    modes = {
        str(number): str(name)
        for number, name in facts.table("power", "modes").items()
        if re.fullmatch(r"\d{1,3}", str(number))
    }
    if mode:
        best = max(modes, key=lambda number: _watts(modes[number]), default="")
        if best and _watts(modes[best]) > _watts(mode):
            found = f"{mode}; {modes[best][:40]} is faster: bench measures this mode"
            do = f"sudo nvpmodel -m {best}"
            yield Finding("power mode", WARNING, found, do)
        else:
            yield Finding("power mode", OK, mode)
    least = facts.number("power", "scaling_min_freq")
    most = facts.number("power", "scaling_max_freq")
    if is_jetson(facts) and least is not None and most is not None and least < most:
        found = f"processor from {least / 1e6:.2f} to {most / 1e6:.2f} GHz, as it likes"
        yield Finding("clocks", NOTE, found, "for bench: sudo jetson_clocks")
    bits, heat = facts.number("power", "throttled"), facts.number("power", "celsius")
    if bits:
        held = int(bits) & 0xF
        found = "lowers its clock now" if held else "has lowered its clock since it was started"
        why = "too little voltage" if int(bits) & 0x10001 else "heat"
        do = "take a stronger power supply" if "voltage" in why else "cool it better"
        yield Finding("throttling", WARNING if held else NOTE, f"{found}: {why}", do)
    if heat is not None and heat >= HOT:
        yield Finding("temperature", WARNING, f"{heat:.0f} degrees Celsius", "cool it better")
    elif heat is not None:
        yield Finding("temperature", OK, f"{heat:.0f} degrees Celsius")


def _watts(mode: str) -> float:
    """For comparing modes of one module: MAXN has no limit, and Super is above it."""
    if mode.upper().startswith("MAXN"):
        return 1e6 + ("SUPER" in mode.upper())
    found = re.search(r"(\d{1,4})\s*W", mode.upper())
    return float(found[1]) if found else 0.0


def judge_clock(facts: Facts, bundle: BundleNeeds | None, now: float | None) -> Iterator[Finding]:
    """The time there, beside ``now`` (of a clock that is trusted) and the bundle's own date."""
    there = facts.number("clock", "unix")
    if there is None:
        yield Finding("clock", NOTE, "unknown")
        return
    written = bundle.written if bundle is not None else 0.0
    if there < EARLIEST:
        found = "before 2026: TLS and pip refuse to work"
        yield Finding("clock", FAULT, found, _CLOCK_DO)
    elif now is not None and abs(there - now) > CLOCK_SECONDS:
        word = "fast" if there > now else "slow"
        found = f"{_span(there - now)} {word}: TLS fails, dates are wrong"
        yield Finding("clock", FAULT, found, _CLOCK_DO)
    elif there < written - CLOCK_SECONDS:
        found = f"{_span(there - written)} before the bundle was written"
        yield Finding("clock", FAULT, found, _CLOCK_DO)
    elif facts.flag("clock", "synchronised") is False:
        yield Finding("clock", NOTE, "right now, but nothing keeps it so", _CLOCK_DO)
    else:
        yield Finding("clock", OK, "right" if now is not None else "plausible")


def _span(seconds: float) -> str:
    size = abs(seconds)
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if size >= 2 * length:
            return f"{size / length:,.0f} {unit}"
    return f"{size:,.0f} seconds"


def judge_user(facts: Facts) -> Iterator[Finding]:
    """Who it runs as."""
    if facts.flag("user", "home_writable") is False:
        do = "give the user a home folder, or set HOME to one that it may write to"
        found = f"{facts.text('user', 'home')}: may not be written to"
        yield Finding("home", WARNING, found, do)
    mask = facts.text("user", "umask")
    if mask.endswith("77"):
        found = f"umask {mask}: a service of another user cannot read what is put here"
        yield Finding("umask", NOTE, found, "umask 022, or run the service as this user")
