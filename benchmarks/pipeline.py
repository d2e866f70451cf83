"""``qmdd detect`` against the bare session: images a second, peak memory, seconds to the start.

    python benchmarks/pipeline.py BUNDLE

Images are JPEG copies of the sample images, made for the run. Three bars:

* speed, two threads, 256x256: images a second of the whole pipeline (files to printed lines) over
  those of the bare session with two threads on arrays that lie ready in memory, same batch; in
  turns of 100 images, the median of their ratios. Beside it, and no bar: the same arrays as the
  pipeline runs them, two at a time on a thread each, which decoding alone keeps it from reaching.
* memory: peak resident set of the command at few and at many images of 256x256. Beside it, and no
  bar: of many sizes from 64x64 to 512x512, where the runtime's pool of memory fills up slowly.
* start: seconds from the start of the process to where the session is made.

The exit code is 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _record import record
from memory import peak_mib
from PIL import Image

from qmdd.cli.output import print_json_line
from qmdd.runtime import Bundle, Detector, open_session
from qmdd.runtime.inputs import find_inputs
from qmdd.runtime.pixels import load_prepared
from qmdd.runtime.session import Session
from qmdd.runtime.sessions import runtime_of

SAMPLES = Path(__file__).parents[1] / "exporter" / "samples_data"
SPEED_BAR, GROWTH_BAR, MIB_BAR, START_BAR = 0.90, 0.05, 300, 0.5
BATCHES = (1, 2, 4, 8)
ROUNDS = 3
#: Makes ``onnxruntime.InferenceSession`` the end of the process: all before it is the start.
_STOP_AT_SESSION = (
    "import os, onnxruntime as o\n"
    "o.InferenceSession = lambda *a, **k: os._exit(0)\n"
    "from qmdd.cli.main import main; main()"
)


def make_images(
    folder: Path, count: int, sides: Sequence[int], distinct: int = 200, seed: int = 0
) -> None:
    """``count`` JPEG files, at most ``distinct`` of them different; pairs of the largest."""
    rng = np.random.default_rng(seed)
    samples = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.webp"))]
    folder.mkdir()
    for index in range(count):
        path = folder / f"{index:05}.jpg"
        if index >= distinct:
            os.link(folder / f"{index % distinct:05}.jpg", path)
            continue
        width, height = (max(sides),) * 2 if index % 20 < 2 else map(int, rng.choice(sides, 2))
        tile = np.asarray(samples[index % len(samples)])
        tile = np.roll(tile, tuple(2 * rng.integers(0, 128, 2)), axis=(0, 1))
        pixels = np.tile(tile, (-(-height // 256), -(-width // 256), 1))[:height, :width]
        Image.fromarray(pixels).save(path, quality=int(rng.integers(80, 96)))


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare(session: Session, batches: list[np.ndarray], threads: int) -> None:
    """Run ``batches``, as many at a time as ``threads``."""
    waiting = iter(batches)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                images = next(waiting, None)
            if images is None:
                return
            session.logits(images)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def detect(detector: Detector, folder: Path, batch: int) -> None:
    """What the command does, its lines printed into nothing."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        for verdict in detector.detect(find_inputs([str(folder)]), batch=batch):
            print_json_line(verdict.to_dict())


def by_batch(bundle: Bundle, folder: Path) -> list[dict[str, Any]]:
    """Images a second of the pipeline at one and two threads by batch, medians in turns."""
    cases = [(threads, batch) for threads in (1, 2) for batch in BATCHES]
    detectors = {threads: Detector(bundle, threads=threads) for threads in (1, 2)}
    count = len(list(folder.iterdir()))
    found: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for threads, batch in cases:
            took = seconds(lambda d=detectors[threads], b=batch: detect(d, folder, b))
            found[threads, batch].append(count / took)
    return [
        {"threads": t, "batch": b, "images_a_second": round(statistics.median(found[t, b]), 1)}
        for t, b in cases
    ]


def speed(bundle: Bundle, parts: Sequence[Path], threads: int, batch: int) -> dict[str, Any]:
    """Images a second of each way over all folders in ``parts``; they take turns by folder."""
    detector = Detector(bundle, threads=threads)
    one, all_ = (open_session(bundle, threads=n, outputs=["logit"]) for n in (1, threads))
    names = ("pipeline", "session", "side_by_side")
    wall: dict[str, list[float]] = {name: [] for name in names}
    used: dict[str, list[float]] = {name: [] for name in names}
    for folder in list(parts) * ROUNDS:
        paths = sorted(folder.iterdir())
        arrays = [load_prepared(path, bundle.sides) for path in paths]
        batches = [np.stack(arrays[i : i + batch]) for i in range(0, len(arrays), batch)]
        ways: dict[str, Callable[[], object]] = {
            "pipeline": lambda folder=folder: detect(detector, folder, batch),
            "session": lambda batches=batches: bare(all_, batches, 1),
            "side_by_side": lambda batches=batches: bare(one, batches, threads),
        }
        for name, work in ways.items():
            before = time.process_time()
            wall[name].append(seconds(work) / len(paths))
            used[name].append((time.process_time() - before) / len(paths))
    return {
        "threads": threads,
        "batch": batch,
        "images": sum(len(list(folder.iterdir())) for folder in parts),
        "turns": len(parts) * ROUNDS,
        "images_a_second": {name: round(1 / statistics.median(wall[name]), 1) for name in names},
        "cpu_ms_an_image": {name: round(1e3 * statistics.median(used[name]), 2) for name in names},
        "pipeline_over": {name: _quartiles(wall[name], wall["pipeline"]) for name in names[1:]},
    }


def _quartiles(theirs: list[float], ours: list[float]) -> list[float]:
    """Median and quartiles of the ratios, turn by turn."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return [round(value, 3) for value in (median, low, high)]


def memory(
    bundle: Bundle, folder: Path, counts: Sequence[int], sides: Sequence[int]
) -> dict[str, Any]:
    """Peaks of the command at each count, two threads; of few images the median of processes."""
    runs = []
    command = [sys.executable, "-m", "qmdd.cli.main", "detect", str(bundle.path), "--jsonl"]
    for count in counts:
        images = folder / f"memory{len(sides)}-{count}"
        make_images(images, count, sides, distinct=100)
        times = ROUNDS if count <= 1000 else 1
        found = [peak_mib([*command, str(images), "--threads=2"]) for _ in range(times)]
        mib, took = (statistics.median(column) for column in zip(*found, strict=True))
        run = {"images": count, "peak_mib": round(mib, 1), "seconds": round(took, 1)}
        print(run, flush=True)
        runs.append(run)
    peaks = [run["peak_mib"] for run in runs]
    return {"runs": runs, "largest_over_smallest": round(max(peaks) / min(peaks), 4)}


def start(bundle: Bundle, folder: Path) -> dict[str, float]:
    """Medians of whole processes."""
    arguments = ["detect", str(bundle.path), str(folder)]
    ours = [sys.executable, "-c", _STOP_AT_SESSION, *arguments]
    pairs = [
        [
            seconds(lambda c=c: subprocess.run(c, check=True))
            for c in (ours, [ours[0], "-c", "pass"])
        ]
        for _ in range(9)
    ]
    ready, python = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"seconds": round(ready, 3), "of_these_python_itself": round(python, 3)}


def main() -> None:
    """All three, and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=1000, help="a multiple of 100")
    parser.add_argument("--memory", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--name", default="pipeline", help="of the result's file")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # First, while this process is small: a child's peak begins with what it is forked from.
        peaks = memory(bundle, folder, arguments.memory, [256])
        varied = memory(bundle, folder, arguments.memory, (*range(64, 161, 2), 512))
        make_images(folder / "some", 48, [256])
        parts = [folder / f"speed{number}" for number in range(-(-arguments.images // 100))]
        for number, part in enumerate(parts):
            make_images(part, 100, [256], seed=number)
        begun = start(bundle, parts[0])
        batches = by_batch(bundle, folder / "some")
        whole = speed(bundle, parts, 2, 1)
    passed = {
        "speed": whole["pipeline_over"]["session"][0] >= SPEED_BAR,
        "memory_growth": peaks["largest_over_smallest"] <= 1 + GROWTH_BAR,
        "memory": max(run["peak_mib"] for run in peaks["runs"]) <= MIB_BAR,
        "start": begun["seconds"] <= START_BAR,
    }
    result = {
        "bundle": {"target": bundle.target, "runtime": runtime_of(bundle)},
        "speed": whole,
        "by_batch": batches,
        "memory": peaks,
        "memory_varied_sizes": varied,
        "start": begun,
        "bars": {
            "speed": SPEED_BAR,
            "memory_growth": 1 + GROWTH_BAR,
            "memory_mib": MIB_BAR,
            "start_seconds": START_BAR,
        },
        "passed": passed,
    }
    record(arguments.name, result)
    if not all(passed.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
