"""Accuracy after post-training calibration: every method, width, with SLR and without.

    python benchmarks/calibration.py CHECKPOINT --data DATA/train --eval DATA/test

One full-precision checkpoint is observed once; then every combination is calibrated and scored on
the same images. ``logit_mse`` is the mean squared difference of its logits to full precision's.
"""

from __future__ import annotations

import argparse
import itertools
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
from qmdd.calibration.ranges import METHODS, Method
from qmdd.models.checkpoint import Checkpoint
from qmdd.runtime.folder import Sample, scan
from qmdd.runtime.metrics import by_generator


def first_of_each(root: Path, count: int) -> list[Sample]:
    """The first ``count`` images of each class of each generator."""
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
        "logit_mse": float(f"{np.mean(np.square(logits - wanted)):.3g}"),
        "flipped": int(((scores > 0.5) != (reference > 0.5)).sum()),
    }


def main() -> None:
    """Observe once, calibrate and score each combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--each", type=int, default=25, help="of each class of each generator")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--slr", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="calibration")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = full_precision(Checkpoint(arguments.checkpoint))
    images = CalibrationImages(arguments.data, count=arguments.images, seed=arguments.seed)
    samples = first_of_each(arguments.eval, arguments.each)
    observed = observe(source, images)
    reference = scores_of(source, samples)
    rows = [{"bits": 32, **summary(samples, reference, reference)}]
    for bits, method, slr in itertools.product(arguments.bits, arguments.methods, arguments.slr):
        started = time.perf_counter()
        plan = Plan(bits, Method(method), slr=bool(slr))
        detector, _ = calibrate(source, observed, images, plan)
        seconds = time.perf_counter() - started
        found = summary(samples, scores_of(detector, samples), reference)
        rows.append({"bits": bits, "method": method, "slr": bool(slr), **found})
        print(rows[-1], f"{seconds:.0f} s", flush=True)
        record(
            arguments.name,
            {
                "checkpoint_sha256": Checkpoint(arguments.checkpoint).sha256(),
                "calibrated_on": {"images": len(images), "digest": images.digest},
                "scored_on": len(samples),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
