"""What was measured: a benchmark beside the full-precision twin, and what devices reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.bench import SCHEMA, TWIN
from ...runtime.bundle import Bundle
from ...runtime.deploy.outcome import REPORTS
from ...runtime.deploy.outcome import SCHEMA as DEPLOYED_SCHEMA
from ...runtime.device.facts import Facts
from ..errors import ReportError
from .proof import on_device, tier_data
from .read import json_object, whole

Report = Callable[[str, int, int], None]

#: So many devices' reports and rows of a benchmark are shown.
MOST_DEVICES, _MOST_ROWS = 64, 64
#: Seconds that ``--bench`` measures for.
SECONDS = 6.0


def read_bench(path: Path, bundle: Bundle) -> dict[str, Any]:
    """What ``qmdd bench --json`` wrote about this bundle.

    Raises:
        ReportError: another file, or about another bundle.
    """
    plain = json_object(path)
    if plain.get("schema") != SCHEMA or not isinstance(plain.get("configurations"), list):
        raise ReportError(f"{path}: not a result of qmdd bench --json")
    ours = (bundle.arch, bundle.bits, bundle.target, bundle.model_bytes)
    theirs = tuple(plain.get(key) for key in ("arch", "bits", "target", "model_bytes"))
    if theirs != ours:
        said = " ".join(str(part) for part in theirs)
        raise ReportError(
            f"{path}: measured on another bundle ({said:.80}; this one is "
            f"{' '.join(str(part) for part in ours)}); run qmdd bench on this one"
        )
    return bench_rows(Facts(plain))


def measure(
    bundle: Bundle, twin: Path | None, no_twin: str, report: Report | None
) -> dict[str, Any]:
    """A short benchmark, one image on one thread.

    Raises:
        SessionError: no runtime for it here, or one that fails.
    """
    from ...runtime.bench import bench
    from ...runtime.bench_inputs import find_inputs

    found = bench(
        bundle,
        find_inputs(bundle, [], None),
        threads=(1,),
        batches=(1,),
        seconds=SECONDS,
        twin=twin,
        no_twin=no_twin,
        report=report,
    )
    return bench_rows(Facts(found.to_dict()))


def bench_rows(facts: Facts) -> dict[str, Any]:
    """A benchmark as rows: threads, batch, what, milliseconds, ratio to the twin."""
    rows = []
    for place in facts.objects("configurations"):
        for row in place.objects("rows"):
            median = row.number("times", "median_ms")
            if median is None:
                continue
            rows.append(
                {
                    "threads": whole(place, "threads") or 0,
                    "batch": whole(place, "batch") or 1,
                    "name": row.text("name"),
                    "twin": row.text("name") == TWIN,
                    "median_ms": median,
                    "p99_ms": row.number("times", "p99_ms"),
                    "images_per_second": row.number("times", "images_per_second"),
                    "ratio": row.number("ratio", "median"),
                    "ratio_low": row.number("ratio", "low"),
                    "ratio_high": row.number("ratio", "high"),
                    "peak_memory": whole(row, "peak_memory"),
                }
            )
    return {
        "rows": rows[:_MOST_ROWS],
        "processor": facts.text("machine", "processor"),
        "cores": whole(facts, "machine", "cores"),
        "system": facts.text("machine", "system"),
        "height": whole(facts, "inputs", "height"),
        "width": whole(facts, "inputs", "width"),
        "no_twin": facts.text("no_twin"),
    }


def devices(bundle: Bundle) -> tuple[list[dict[str, Any]], list[str]]:
    """What deployments left in the bundle, and a sentence for each file that is none."""
    folder = bundle.path / REPORTS
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    told, notes = [], []
    if len(paths) > MOST_DEVICES:
        notes.append(f"{len(paths)} devices reported; the first {MOST_DEVICES} are shown")
    digest = bundle.manifest_sha256
    for path in paths[:MOST_DEVICES]:
        try:
            plain = json_object(path)
            if plain.get("schema") != DEPLOYED_SCHEMA:
                raise ReportError(f"{path}: not a report of qmdd deploy")
        except ReportError as error:
            notes.append(f"left out: {str(error).replace(str(path), path.name)}")
            continue
        told.append(_device(Facts(plain), digest, quantized=bundle.bits != 32))
    return told, notes


def _device(facts: Facts, digest: str, *, quantized: bool) -> dict[str, Any]:
    tiers = [on_device(tier, quantized=quantized) for tier in facts.objects("verify", "parity")[:8]]
    benched = bench_rows(Facts(facts.table("bench")))
    return {
        "host": facts.text("host", "destination") or "unnamed",
        "machine": facts.text("facts", "jetson", "model")
        or facts.text("bench", "machine", "processor"),
        "state": facts.text("state"),
        "error": facts.text("error"),
        "time": facts.text("time"),
        "same": facts.text("manifest_sha256") == digest,
        "parity": [tier_data(tier) for tier in tiers],
        "engine": bool(facts.table("engine")),
        "passed": bool(tiers) and all(tier.passed for tier in tiers),
        "bench": benched["rows"],
    }
