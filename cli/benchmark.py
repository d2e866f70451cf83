"""What ``qmdd bench`` measured, in words and tables."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from .output import print_line, print_table

if TYPE_CHECKING:
    from ..runtime.bench import BenchResult, Configuration, Row

_MIB = 1 << 20
#: How far the clock may be ahead of the processor before that is told.
_BUSY = 1.2
_ORIGINS = {
    "golden": "the bundle's golden images",
    "synthetic": "a made-up image",
    "files": "the images given",
}


def print_benchmark(found: BenchResult) -> None:
    """Machine, table, and what the table leaves out. All of it is measured."""
    bundle, machine = found.bundle, found.machine
    print_line(
        f"{bundle.arch}, {bundle.bits} bits, target {bundle.target}; model.onnx "
        f"{bundle.model_bytes:,} bytes"
    )
    height, width = found.inputs.size
    left_out = f" ({found.inputs.left_out} of another size left out)" * bool(found.inputs.left_out)
    print_line(f"{_ORIGINS[found.inputs.origin]}, {width}x{height} pixels{left_out}")
    have = " ".join(machine.instructions)
    print_line(
        f"{machine.processor}, {machine.cores} core{'s' * (machine.cores > 1)}; {have}; measured"
    )
    print_line("")
    _print_tables(found)
    print_line("")
    _print_stages(found)
    print_line("")
    for name, about in found.runtimes.items():
        kernel = f", kernel {about['kernel']}" if about.get("kernel") else ""
        version = f" {about['version']}" if about.get("version") else ""
        load = statistics.median(found.load_seconds(name))
        apart = about["logit_difference"]
        same = "" if apart is None else f"; logits within {apart:.0e} of the source's"
        print_line(
            f"{name}{version}{kernel}: {about['why']}; loads in {load:.2f} s "
            f"(median of {len(found.load_seconds(name))}){same}"
        )
    if found.no_twin:
        print_line(f"no full-precision twin: {found.no_twin}")
    busy = _busy(found)
    if busy > _BUSY:
        print_line(
            f"other programs used the cores, too: runs took up to {busy:.1f} times the processor's "
            "own time; close them, or look at cpu_ratio of --json"
        )
    print_line("all measured; ratio: to the twin, median of the turns (10 to 90 % of them)")


def _busy(found: BenchResult) -> float:
    """By the clock over by the processor, at most, of what ran on one thread."""
    alone = [row.times for c in found.configurations if c.threads == 1 for row in c.rows]
    return max((times.median_ms / max(times.cpu_ms, 1e-9) for times in alone), default=1.0)


def _print_tables(found: BenchResult) -> None:
    """Two, because one would not fit a terminal of 80 columns."""
    pairs = [(c, row) for c in found.configurations for row in c.rows]
    place = ("threads", "batch", "what")
    columns = (*place, "median ms", "p90", "p99", "runs", "ratio")
    print_table(columns, [(*_place(c, row), *_times(row)) for c, row in pairs])
    print_line("")
    resources = (*place, "images/s", "load s", "loaded MiB", "peak MiB")
    print_table(resources, [(*_place(c, row), *_resources(row)) for c, row in pairs])


def _place(configuration: Configuration, row: Row) -> tuple[object, ...]:
    return configuration.threads, configuration.batch, row.name


def _times(row: Row) -> tuple[object, ...]:
    times, ratio = row.times, row.ratio
    return (
        f"{times.median_ms:.2f}",
        f"{times.p90_ms:.2f}",
        f"{times.p99_ms:.2f}",
        times.runs,
        f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "-",
    )


def _resources(row: Row) -> tuple[object, ...]:
    return (
        f"{row.times.images_per_second:.1f}",
        f"{row.load_seconds:.2f}",
        _mib(row.loaded_memory),
        _mib(row.peak_memory),
    )


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f}" if size else "-"


def _print_stages(found: BenchResult) -> None:
    """One image's way: file, pixels, session, verdict."""
    from ..runtime.bench import count_of

    stages, first = found.stages, found.configurations[0]
    session = first.rows[0].times.median_ms / first.batch
    threads = f"{count_of(first.threads)}, batch {first.batch}"
    print_line(
        f"one image: decode {1e3 * stages['decode_seconds']:.2f} ms ({stages['decoded']}), crop "
        f"{1e3 * stages['crop_seconds']:.3f} ms, session {session:.2f} ms ({threads}), verdict "
        f"{1e6 * stages['verdict_seconds']:.1f} us"
    )
