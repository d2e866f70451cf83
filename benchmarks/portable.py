"""The portable form (``--target cpu``) beside its full-precision twin, in one run on one thread.

ResNet-23 at 256x256, the built-in checkpoints of 2, 3 and 4 bits, in ONNX Runtime; with standard
operators and with ``com.microsoft``'s, and the interchange form ``onnx`` for comparison. The twin
has the same topology without quantizers. Sessions take turns; times are the thread's own, so that
other processes on the machine are not counted. *Measured*. Wrong codes are those of the export's own
parity, on the sample images.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/portable.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _forms import thread_ms
from _record import record

from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import Source
from qmdd.models import build_detector
from qmdd.models.zoo import builtin_checkpoint
from qmdd.runtime.session import OnnxSession

ARCH, SIDE, WIDTHS = "resnet23", 256, (2, 3, 4)
#: Ratios that the issue asks for, standard operators.
BARS = {2: 0.46, 3: 0.58, 4: 0.75}


def bundles(folder: Path) -> dict[str, dict[str, Any]]:
    """Every model by a name, with its file and the wrong codes of its parity."""
    torch.manual_seed(0)
    twin = Source(build_detector(ARCH, 32).eval(), ARCH, 32, {"seed": 0})
    export_bundle(twin, folder / "twin", verify=False)
    found: dict[str, dict[str, Any]] = {"twin": {"path": folder / "twin" / "model.onnx"}}
    for bits in WIDTHS:
        for form, options in (
            ("cpu", {"target": "cpu"}),
            ("cpu, com.microsoft", {"target": "cpu", "microsoft": True}),
            ("onnx", {"target": "onnx"}),
        ):
            place = folder / f"{form}-{bits}"
            checkpoint = builtin_checkpoint(ARCH, bits)
            result = export_bundle(checkpoint, place, **options)
            found[f"{bits} bits, {form}"] = {
                "bits": bits,
                "form": form,
                "path": place / "model.onnx",
                "bytes": result.model_bytes,
                "codes_compared": sum(tier.codes_compared for tier in result.parity),
                "wrong_codes": sum(tier.wrong_codes for tier in result.parity),
            }
    return found


def load_seconds(path: Path, times: int = 5) -> float:
    """CPU seconds of opening a session, median."""
    spent = []
    for _ in range(times):
        started = time.process_time()
        OnnxSession(path, threads=1)
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def main() -> int:
    """Export, measure, record; 1 if a code is wrong or a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (1, 3, SIDE, SIDE), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        models = bundles(Path(name))
        sessions = [OnnxSession(model["path"], threads=1) for model in models.values()]
        loads = [load_seconds(model["path"]) for model in models.values()]
        runs = [lambda s=session: s.run(image) for session in sessions]
        spent = thread_ms(runs, arguments.rounds)
    twin, rows, failed = spent[0], [], False
    for (key, model), ms, load in zip(models.items(), spent, loads, strict=True):
        row = {k: v for k, v in model.items() if k != "path"}
        row |= {"ms": round(ms, 2), "ratio": round(ms / twin, 3), "load_s": round(load, 3)}
        rows.append({"model": key, **row})
        bar = BARS[model["bits"]] if model.get("form") == "cpu" else None
        failed |= bool(model.get("wrong_codes")) or (bar is not None and ms / twin > bar)
    record(
        "portable",
        {
            "label": "measured",
            "clock": "CPU time of one thread, median, sessions taking turns",
            "network": f"{ARCH}, {SIDE}x{SIDE}",
            "bars": {str(bits): bar for bits, bar in BARS.items()},
            "rows": rows,
        },
    )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
