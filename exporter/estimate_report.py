"""A bundle's estimate as tables and sentences; each title says that it is estimated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..models.tables import Table
from .devices import Device, Fact
from .estimating import LABEL, BundleEstimate
from .roofline import Estimate
from .workload import KINDS

#: Limits in words.
_LIMITED_BY = {
    "compute": "multiply-adds",
    "elementwise": "element-wise operations",
    "memory": "memory bandwidth",
    "start": "starting kernels",
}


def title(found: BundleEstimate) -> str:
    """What was estimated, for the line above the tables."""
    batch = found.estimates[0].batch
    images = "one image" if batch == 1 else f"{batch} images at a time"
    return (
        f"{LABEL}, not measured: {found.network}, on {found.device.title}, {found.mode.name} "
        f"(target {found.target}), {images} of {found.side} pixels"
    )


def layer_table(found: BundleEstimate) -> Table:
    """One row a kernel: work of the first precision, then each precision's bound and its limit."""
    first = found.estimates[0]
    columns = ("kernel", "kind", "width", "M mult-adds", "kB weights", "kB in, out")
    times = tuple(f"{estimate.precision} us at least" for estimate in found.estimates)
    rows = []
    for index, bound in enumerate(first.bounds):
        cells = [
            bound.layer.partition("/")[0].removesuffix(".acc"),
            bound.kind,
            bound.width,
            f"{bound.multiply_adds / 1e6:,.1f}" if bound.multiply_adds else "",
            f"{bound.weight_bytes / 1e3:,.1f}",
            f"{(bound.memory_bytes + bound.cache_bytes) / 1e3:,.1f}",
        ]
        for estimate in found.estimates:
            same = estimate.bounds[index]
            cells.append(f"{same.limit} {1e3 * same.ms:8,.2f}")
        rows.append(tuple(cells))
    return Table("Kernels", (*columns, *times), rows)


def kind_table(found: BundleEstimate) -> Table:
    """One row a kind of kernel: how many, and its milliseconds at each precision."""
    first = found.estimates[0]
    times = [estimate.by_kind() for estimate in found.estimates]
    columns = ("kind", "kernels", *(f"{e.precision} ms, {LABEL}" for e in found.estimates))
    rows = [
        (
            kind,
            str(sum(bound.kind == kind for bound in first.bounds)),
            *(f"{part[kind]:.4f}" for part in times),
        )
        for kind in KINDS
        if kind in times[0]
    ]
    total = ("total", str(len(first.bounds)), *(f"{e.ms:.4f}" for e in found.estimates))
    return Table("Kinds", columns, [*rows, total])


def total_table(found: BundleEstimate) -> Table:
    """One row a precision: bytes, the bound, images a second, and against the slowest."""
    slowest = max(estimate.ms for estimate in found.estimates)
    columns = (
        *("precision", "MB weights", "MB activations", "of these cached"),
        *(f"ms at least, {LABEL}", "images/s at most", "times faster"),
    )
    rows: list[tuple[str, ...]] = []
    for estimate in found.estimates:
        near, far = estimate.total("cache_bytes"), estimate.total("memory_bytes")
        rows.append(
            (
                estimate.precision,
                f"{estimate.total('weight_bytes') / 1e6:.2f}",
                f"{(near + far) / 1e6:.2f}",
                f"{near / (near + far):.0%}",
                f"{estimate.ms:.3f}",
                f"{estimate.images_per_second:,.0f}",
                f"{slowest / estimate.ms:.2f}",
            )
        )
    return Table("Totals", columns, rows)


def bottlenecks(found: BundleEstimate) -> Iterator[str]:
    """For each precision what limits it, and where."""
    for estimate in found.estimates:
        yield f"{estimate.precision}: {_bottleneck(estimate)}"
    stored = found.estimates[0].total("stored_bytes")
    yield f"Weights in the bundle's file: {stored / 1e6:.2f} MB."


def _bottleneck(estimate: Estimate) -> str:
    shares = sorted(estimate.by_limit().items(), key=lambda item: -item[1])
    parts = ", ".join(f"{_LIMITED_BY[limit]} {ms / estimate.ms:.0%}" for limit, ms in shares)
    longest = max(estimate.bounds, key=lambda bound: bound.ms)
    return (
        f"time by what limits it: {parts}; the longest kernel is {longest.layer} "
        f"({longest.ms / estimate.ms:.0%}, {_LIMITED_BY[longest.limit]})"
    )


def sources(found: BundleEstimate) -> Iterator[str]:
    """Each number of the device with its source."""
    for name, fact in found.facts().items():
        doubt = "" if fact.checked else " (from memory, not looked up)"
        yield f"{name.replace('_', ' ')} {fact.value:g}: {fact.source}{doubt}"


def device_table(devices: Iterable[Device]) -> Table:
    """One row a device and power mode; a star marks what was not looked up."""
    columns = (
        *("target", "power mode", "from JetPack", "INT4", "INT8 TOPS", "FP16 TFLOPS"),
        *("FP32 TFLOPS", "memory GB/s", "memory GB", "cache MiB"),
    )
    rows = []
    for device in devices:
        for mode in device.modes:
            rates = []
            for width in ("int4", "int8", "fp16", "fp32"):
                known = device.architecture.per_clock.get(width)
                if known is None:
                    rates.append("-")
                    continue
                behind = (known, device.multiprocessors, mode.clock_mhz)
                star = "" if all(fact.checked for fact in behind) else "*"
                tera = device.rate(width, mode) / 1e12
                rates.append(f"{tera:,.0f}{star}" if tera >= 100 else f"{tera:.3g}{star}")
            others = (mode.bandwidth, device.memory_gb, device.cache_mib)
            cells = (device.name, mode.name, mode.jetpack or "", *rates, *map(_starred, others))
            rows.append(cells)
    return Table("Devices", columns, rows)


def _starred(fact: Fact) -> str:
    return f"{fact.value:g}{'' if fact.checked else '*'}"
