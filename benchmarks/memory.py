"""Peak memory of a command at two numbers of images: does it grow with the data?

The images are made for the run, in the field's layout (four generators, both classes), and
``{images}`` in the command is replaced by their folder:

    python benchmarks/memory.py memory_eval_bundle -- qmdd eval BUNDLE --data {images} --json

The peak is the resident set of the command's process, as the kernel counts it (``ru_maxrss``). The
exit code is 1 where the peaks differ by more than 10 %.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _record import record
from PIL import Image

GENERATORS = ("first", "second", "third", "fourth")
CLASSES = ("0_real", "1_fake")
#: How far the peaks may lie apart.
BAR = 0.10


def make_images(root: Path, count: int, sides: tuple[int, int], seed: int = 0) -> None:
    """``count`` PNG files below ``root``: colours on coarse blocks with grain, fakes doubled."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        label, generator = index % 2, GENERATORS[index // 2 % len(GENERATORS)]
        folder = root / generator / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        height, width = (int(v) for v in rng.integers(sides[0] // 16, sides[1] // 16 + 1, 2) * 16)
        coarse = rng.integers(0, 256, (height // 16, width // 16, 3))
        smooth = coarse.repeat(16, axis=0).repeat(16, axis=1)
        grain = rng.normal(0, 12, (height >> label, width >> label, 3))
        grain = grain.repeat(1 + label, axis=0).repeat(1 + label, axis=1)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05}.png", compress_level=1)


def peak_mib(command: list[str]) -> tuple[float, float]:
    """Peak resident set in MiB and wall-clock seconds of a command that must succeed."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"exit code {running.returncode}: {' '.join(command)}")
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return usage.ru_maxrss / unit, time.perf_counter() - started


def main() -> None:
    """Measure the smaller number first, then the larger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the result's file")
    parser.add_argument("--images", type=int, nargs="+", default=[200, 2000])
    parser.add_argument(
        "--sides", type=int, nargs=2, default=[256, 256], help="least and most, multiples of 16"
    )
    parser.add_argument("command", nargs="+", help="after --; {images} is replaced")
    arguments = parser.parse_args()
    runs = []
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            make_images(Path(folder), count, tuple(arguments.sides))
            command = [part.replace("{images}", folder) for part in arguments.command]
            mib, seconds = peak_mib(command)
        runs.append({"images": count, "peak_mib": round(mib, 1), "seconds": round(seconds, 1)})
        print(runs[-1], flush=True)
    peaks = [run["peak_mib"] for run in runs]
    growth = max(peaks) / min(peaks) - 1
    record(
        arguments.name,
        {
            "command": " ".join(arguments.command),
            "sides": arguments.sides,
            "runs": runs,
            "largest_over_smallest": round(1 + growth, 4),
            "bar": 1 + BAR,
            "passed": growth <= BAR,
        },
    )
    if growth > BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
