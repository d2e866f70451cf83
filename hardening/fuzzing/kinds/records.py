"""Files that commands write and read back: another program, or a crash, may have been at them."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..kind import Kind, NotRight, Reader
from ..mutators.json_text import mutate_json, mutate_json_lines
from ..mutators.plain import mutate_bytes, mutate_ends
from ..mutators.words import mutate_words
from ..workshop import Workshop

_LINE = {"time": "2026-01-31T12:00:00Z", "path": "a.jpg", "size": 9, "mtime_ns": 17, "score": 0.5}


def _journals(_workshop: Workshop) -> list[bytes]:
    lines = [json.dumps({**_LINE, "path": f"{n}/é.png", "size": n}).encode() for n in range(4)]
    return [b"\n".join(lines) + b"\n", b"\n".join(lines) + b'\n{"time": "20', b""]


def _read_journal(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.watching.found import Found
    from qmdd.runtime.watching.log import VerdictLog

    path = scratch / "verdicts.jsonl"
    old, packed = scratch / "verdicts.jsonl.1", scratch / "verdicts.jsonl.2.gz"
    found = Found(Path("new.png"), "new.png", 1, 2)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        half = data[: len(data) // 2]
        old.write_bytes(half)
        packed.write_bytes(gzip.compress(half, 1) if len(data) % 2 else half)
        with VerdictLog(path) as log:
            held = path.read_bytes()
            if not data.startswith(held) or b"\n" in data[len(held) :]:
                raise NotRight("more was cut off than the last line")
            done = set(log.done)
            log.append(found, {"time": "now", "score": 0.5})
        with VerdictLog(path) as log:
            if not log.done >= done | {found.key}:
                raise NotRight("a file that was done is forgotten")

    return read


_SCANNED = ("/data/a.png", "/data/b.png")


def _scan() -> dict[str, Any]:
    return {
        "manifest_sha256": "0" * 64,
        "model_sha256": "1" * 64,
        "runtime": "onnxruntime",
        "threshold": 0.5,
        "every": 10,
        "part": 2,
    }


def _scan_seeds(_workshop: Workshop) -> list[bytes]:
    listed = b"".join(f"{path}\0\0".encode() for path in _SCANNED)
    scan = {**_scan(), "files": 2, "inputs_sha256": hashlib.sha256(listed).hexdigest()}
    return [json.dumps({"schema": 1, "bundle": "b", "scan": scan}, indent=2).encode()]


def _read_scan(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.inputs import Input
    from qmdd.runtime.scan.record import RECORD, Scan, open_scan

    inputs = [Input(Path(path)) for path in _SCANNED]
    ours = Scan(**_scan())

    def read(data: bytes) -> None:
        (scratch / RECORD).write_bytes(data)
        open_scan(scratch, ours, inputs, about={}, force=False)
        if (scratch / RECORD).read_bytes() != data:
            raise NotRight("a record that was not ours was replaced")

    return read


def _part_inputs() -> Any:
    from qmdd.runtime.inputs import Input
    from qmdd.runtime.scan.listing import Part

    return Part(0, 0, 3, 0, 9), [Input(Path(f"/data/{n}.png")) for n in range(3)]


def _parts(workshop: Workshop) -> list[bytes]:
    from qmdd.runtime.scan.table import part_path, write_part
    from qmdd.runtime.verdicts import Verdict

    part, inputs = _part_inputs()
    verdicts = [
        Verdict(item.path, 0.5 + n / 10, "fake" if n else "real")
        if n < 2
        else Verdict(item.path, None, None, "no image")
        for n, item in enumerate(inputs)
    ]
    folder = workshop.folder / "parts"
    folder.mkdir(exist_ok=True)
    write_part(folder, part, verdicts, scan="3" * 64, bundle="4" * 64)
    return [part_path(folder, 0).read_bytes()]


def _read_part(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.scan.table import check_part, part_path

    part, inputs = _part_inputs()
    path = part_path(scratch, 0)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        counts = check_part(scratch, part, inputs, scan="3" * 64)
        if counts is not None and counts.files != part.files:
            raise NotRight(f"{counts} of {part}")

    return read


def _list_seeds(_workshop: Workshop) -> list[bytes]:
    return [b"/data/0.png\0\0/data/1.png\0\0/data/2.png\0no image\0"]


def _read_listing(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.scan.listing import Part, read_part

    path = scratch / "inputs"
    size = len(_list_seeds(_workshop)[0])

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for end in (size, len(data)):
            read_part(path, Part(0, 0, 3, 0, end))

    return read


def _bench(workshop: Workshop) -> dict[str, Any]:
    manifest = json.loads(workshop.file("manifest.json"))
    times = {"median_ms": 1.5, "p99_ms": 2.0, "images_per_second": 666.0, "runs": 9}
    row = {"name": "onnxruntime", "times": times, "peak_memory": 9 << 20, "ratio": {"median": 0.5}}
    return {
        "schema": 1,
        **{key: manifest[key] for key in ("arch", "bits", "target")},
        "model_bytes": manifest["files"]["model.onnx"]["bytes"],
        "machine": {"processor": "p", "cores": 2, "system": "s"},
        "inputs": {"height": 32, "width": 32},
        "configurations": [{"threads": 1, "batch": 1, "rows": [row]}],
        "no_twin": "",
    }


def _bench_seeds(workshop: Workshop) -> list[bytes]:
    from qmdd.runtime.bench import SCHEMA

    return [json.dumps({**_bench(workshop), "schema": SCHEMA}).encode()]


def _read_bench(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.cli.output import print_json
    from qmdd.exporter.report.speed import read_bench
    from qmdd.runtime.bundle import Bundle

    bundle = Bundle.open(workshop.bundle)
    path = scratch / "bench.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        print_json(read_bench(path, bundle))

    return read


def _reports(workshop: Workshop) -> list[bytes]:
    digest = hashlib.sha256(workshop.file("manifest.json")).hexdigest()
    manifest = json.loads(workshop.file("manifest.json"))
    plain = {
        "schema": 1,
        "host": {"destination": "a@b"},
        "state": "deployed",
        "manifest_sha256": digest,
        "verify": {"passed": True, "parity": manifest["parity"]},
        "bench": _bench(workshop),
        "facts": {"jetson": {"model": "Orin"}},
    }
    return [json.dumps(plain).encode()]


def _read_report(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.cli.output import print_json
    from qmdd.exporter.report.speed import devices
    from qmdd.runtime.bundle import Bundle
    from qmdd.runtime.comparing.facts import device_rows

    place = scratch / "bundle"
    shutil.copytree(workshop.bundle, place)
    bundle = Bundle.open(place)
    path = place / "devices" / "a@b.json"
    path.parent.mkdir()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        print_json([device_rows(bundle), devices(bundle)])

    return read


def _configs(_workshop: Workshop) -> list[bytes]:
    from qmdd.exporter.triton.config import config_bytes
    from qmdd.exporter.triton.settings import Settings

    settings = Settings(
        name="detector",
        backend="onnxruntime",
        sides={"min_side": 32, "multiple": 2, "max_side": 4096},
        threshold=0.5,
        arch="resnet23",
        bits=2,
        max_batch=8,
        best_batch=1,
        queue_delay_us=2000,
        device="cpu",
        threads=1,
        plans={"8.6": "model.plan"},
        versions={"1": {"sha256": "0" * 64, "parity": "0 of 9"}},
    )
    return [config_bytes(settings)]


def _read_config(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.exporter.triton.config import CONFIG, config_bytes, read_config

    path = scratch / CONFIG

    def read(data: bytes) -> None:
        path.write_bytes(data)
        held = read_config(path)
        held.settings.refusal(held.settings)
        config_bytes(held.settings)

    return read


def _mutate_config(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The first line holds JSON."""
    first, _, rest = data.partition(b"\n")
    if rng.random() < 0.2 or not first.startswith(b"# qmdd "):
        return mutate_words(rng, data, seeds)
    return b"# qmdd " + mutate_json(rng, first[7:], ()).replace(b"\n", b" ") + b"\n" + rest


KINDS = (
    Kind(
        "journal",
        "the log of qmdd watch, its memory of what is done",
        _journals,
        _read_journal,
        (mutate_json_lines, mutate_bytes),
        guided=("qmdd.runtime.watching.log", "qmdd.runtime.watching.found"),
        cases=50_000,
    ),
    Kind(
        "scan-record",
        "scan.json, what a folder of results is of",
        _scan_seeds,
        _read_scan,
        (mutate_json,),
        guided=("qmdd.runtime.scan.record",),
        cases=60_000,
    ),
    Kind(
        "scan-part",
        "a part of a scan's results (Parquet), by Arrow",
        _parts,
        _read_part,
        (mutate_ends, mutate_bytes),
        cases=20_000,
    ),
    Kind(
        "scan-inputs",
        "a scan's list of inputs",
        _list_seeds,
        _read_listing,
        (mutate_bytes,),
        cases=100_000,
    ),
    Kind(
        "bench",
        "a result of qmdd bench --json, as qmdd report reads it",
        _bench_seeds,
        _read_bench,
        (mutate_json,),
        guided=("qmdd.exporter.report", "qmdd.runtime.device.facts"),
        cases=40_000,
    ),
    Kind(
        "device-report",
        "reports of qmdd deploy in a bundle, as compare and report read them",
        _reports,
        _read_report,
        (mutate_json,),
        guided=("qmdd.exporter.report", "qmdd.runtime.comparing.facts", "qmdd.runtime.parity"),
        cases=40_000,
    ),
    Kind(
        "triton",
        "config.pbtxt of a model repository, read back by its first line",
        _configs,
        _read_config,
        (_mutate_config,),
        guided=("qmdd.exporter.triton.config", "qmdd.exporter.triton.settings"),
        cases=60_000,
    ),
)
