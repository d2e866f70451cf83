r"""Accuracy after post-training calibration, for a list of widths and methods.

    python benchmarks/calibration.py CHECKPOINT --data DATA/train --eval DATA/test \
        --plans 8:minmax 4:mse 4:mse:slr

One full-precision checkpoint is observed once; then every plan is calibrated and scored on the
same images. ``logit_mse`` is the mean squared difference of its logits to full precision's. The
exit code is 1 where a plan of 8 bits without SLR loses more than a point of mean accuracy.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import record

from qmdd.calibration.calibrate import Plan, calibrate
from qmdd.calibration.evaluate import scores_of
from qmdd.calibration.images import CalibrationImages
from qmdd.calibration.observe import full_precision, observe
from qmdd.calibration.ranges import Method
from qmdd.models.checkpoint import Checkpoint
from qmdd.runtime.folder import Sample, scan
from qmdd.runtime.metrics import by_generator

#: How much accuracy 8 bits may lose.
BAR = 0.01


def first_of_each(root: Path, count: int | None) -> list[Sample]:
    """The first ``count`` images of each class of each generator; ``None``: all."""
    kept: dict[tuple[str, int], list[Sample]] = {}
    for sample in scan(root):
        kept.setdefault((sample.generator, sample.label), []).append(sample)
    return [sample for rows in kept.values() for sample in rows[:count]]


def summary(samples: list[Sample], scores: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Means over the generators, and the distance of the logits from full precision's."""
    found = by_generator(samples, scores)
    tiny = np.finfo(np.float64).tiny
    logits, wanted = (np.log((s + tiny) / (1 - s + tiny)) for s in (scores, reference))
    return {
        "acc": round(float(np.mean([m.acc for m in found.values()])), 4),
        "ap": round(float(np.mean([m.ap for m in found.values()])), 4),
        "acc_by_generator": {name: round(m.acc, 4) for name, m in found.items()},
        "logit_mse": float(f"{np.mean(np.square(logits - wanted)):.3g}"),
        "flipped": int(((scores > 0.5) != (reference > 0.5)).sum()),
    }


def _plan(text: str) -> Plan:
    bits, method, *rest = text.split(":")
    return Plan(int(bits), Method(method), slr=rest == ["slr"])


def main() -> None:
    """Observe once, calibrate and score each plan; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--each", type=int, help="of each class of each generator; default: all")
    parser.add_argument("--plans", type=_plan, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="calibration")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = full_precision(Checkpoint(arguments.checkpoint))
    images = CalibrationImages(arguments.data, count=arguments.images, seed=arguments.seed)
    samples = first_of_each(arguments.eval, arguments.each)
    observed = observe(source, images)
    reference = scores_of(source, samples)
    full = summary(samples, reference, reference)
    rows: list[dict[str, Any]] = []
    for plan in arguments.plans:
        started = time.perf_counter()
        detector, _ = calibrate(source, observed, images, plan)
        print(f"calibrated in {time.perf_counter() - started:.0f} s", flush=True)
        found = summary(samples, scores_of(detector, samples), reference)
        rows.append({"bits": plan.bits, "method": plan.method.name, "slr": plan.slr, **found})
        lost = [full["acc"] - row["acc"] for row in rows if row["bits"] == 8 and not row["slr"]]
        record(
            arguments.name,
            {
                "checkpoint_sha256": Checkpoint(arguments.checkpoint).sha256(),
                "arch": source.config.arch,
                "calibrated_on": {"images": len(images), "digest": images.digest},
                "scored_on": len(samples),
                "full_precision": full,
                "calibrated": rows,
                "bar": f"8 bits lose at most {BAR} of mean accuracy",
                "passed": max(lost) <= BAR if lost else None,
            },
        )
    if lost and max(lost) > BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
