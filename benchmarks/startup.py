"""``qmdd --help`` as a whole process, over ``python -c pass``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from _record import record

RUNS = 15


def seconds(*command: str) -> float:
    """Wall-clock seconds of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Warm up once, then take turns."""
    ours = (sys.executable, "-m", "qmdd.cli.main", "--help")
    bare = (sys.executable, "-c", "pass")
    seconds(*ours)
    pairs = [(seconds(*ours), seconds(*bare)) for _ in range(RUNS)]
    helped, empty = (statistics.median(column) for column in zip(*pairs, strict=True))
    record(
        "startup",
        {
            "seconds_help": round(helped, 3),
            "seconds_python": round(empty, 3),
            "ratio": round(helped / empty, 2),
        },
    )


if __name__ == "__main__":
    main()
