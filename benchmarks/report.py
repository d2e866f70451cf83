"""``qmdd report`` of every built-in checkpoint, with its source and alone: time, memory, bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import record

from qmdd.models.zoo import builtin_checkpoints

QMDD = (sys.executable, "-m", "qmdd.cli.main")


def measured(*words: str) -> dict[str, float]:
    """Run ``qmdd``: seconds by the clock and of the processor, peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen([*QMDD, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, words
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),  # Linux counts in KiB
    }


def main() -> None:
    """One thread, so that other programs on the machine disturb least."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in builtin_checkpoints():
            bundle = Path(folder) / path.stem
            command = ("export", "--checkpoint", path.stem, "-o", str(bundle))
            subprocess.run([*QMDD, *command], check=True, stdout=subprocess.DEVNULL)
            found[path.stem] = {}
            for how, options in (("with its source", ()), ("alone", ("--golden",))):
                page = Path(folder) / "report.html"
                result = measured(
                    "report", str(bundle), "-o", str(page), "--threads", "1", "--force", *options
                )
                found[path.stem][how] = {**result, "bytes": page.stat().st_size}
    record("report", {"threads": 1, "reports": found})


if __name__ == "__main__":
    main()
