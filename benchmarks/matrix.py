"""Every kind of detector, exported and verified: 0 wrong codes in both tiers, or it says which.

Architecture x width x activation quantizer x SLR x CQB; representations and weight quantizers take
turns. Detectors are narrow and untrained (their slopes, shifts and ranges random, batch-norms
settled on noise): exactness does not depend on what was learned, and most codes occur. Images are
odd in every way: 70x94, 32x32 and 64x64 pixels of noise on coarse blocks.

An interrupted run goes on where it was: finished rows are kept in ``--rows``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import record
from PIL import Image
from torch import nn

from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import source_from_network
from qmdd.models import Detector, build_detector
from qmdd.models.config import REPRESENTATIONS
from qmdd.models.quantizers import ACTIVATIONS, FULL_PRECISION, QUANTIZED_BITS

ARCHITECTURES = ("resnet23", "resnet34", "resnet50", "mobilenetv2")
WEIGHTS = {1: ("binary", "n2uq"), 2: ("n2uq", "lsq", "minmax")}


def rows() -> Iterator[dict[str, Any]]:
    """Every combination that exists; representations and weight quantizers take turns."""
    for number, (arch, bits, activation, slr, cqb) in enumerate(
        itertools.product(ARCHITECTURES, QUANTIZED_BITS, ACTIVATIONS, (True, False), (True, False))
    ):
        if activation == "binary" and bits != 1:
            continue
        kinds = WEIGHTS[min(bits, 2)]
        yield {
            "arch": arch,
            "bits": bits,
            "activation": activation,
            "weight": kinds[number // 4 % len(kinds)],
            "slr": slr,
            "cqb": cqb,
            # Both with each of the four settings of SLR and CQB, and with each of the others.
            "representation": REPRESENTATIONS[number.bit_count() % 2],
        }
    for arch, cqb, representation in itertools.product(
        ARCHITECTURES, (True, False), REPRESENTATIONS
    ):
        yield {"arch": arch, "bits": FULL_PRECISION, "cqb": cqb, "representation": representation}


def settled(row: dict[str, Any], width: float) -> Detector:
    """A detector with random parameters, its statistics and ranges those of noise."""
    torch.manual_seed(0)
    detector = build_detector(**row, width=width)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "prelu" in name:
                parameter.uniform_(0.0, 0.6)
            elif ".shift_" in name:
                parameter.uniform_(-0.2, 0.2)
            elif name.endswith(".alpha"):
                parameter.uniform_(0.3, 0.8)
            elif name.endswith("bn.weight"):
                parameter.uniform_(0.5, 1.5)
        norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 0.5
        for _ in range(4):
            detector(torch.randint(0, 256, (4, 3, 64, 64), generator=generator))
    return detector.eval()


def pictures(folder: Path) -> list[Path]:
    """Three image files that no stride divides evenly."""
    rng = np.random.default_rng(7)
    files = []
    for height, width in ((70, 94), (32, 32), (64, 64)):
        coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
        smooth = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
        noisy = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{height}x{width}.png")
        Image.fromarray(noisy).save(files[-1])
    return files


def measure(row: dict[str, Any], width: float, target: str) -> dict[str, Any]:
    """Build, freeze, export, verify; what came out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = source_from_network(settled(row, width), row["arch"])
        result = export_bundle(source, folder / "bundle", target=target, images=pictures(folder))
    return {
        **row,
        "passed": result.passed,
        "codes": sum(tier.codes_compared for tier in result.parity),
        "wrong": sum(tier.wrong_codes for tier in result.parity),
        "flipped": sum(tier.flipped_verdicts for tier in result.parity),
        "max_abs_logit_diff": max(tier.max_abs_logit_diff for tier in result.parity),
    }


def main() -> None:
    """Run what is not done yet, then record the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--target", default="onnx", help="what to lower for")
    parser.add_argument("--rows", type=Path, help="default: runs/matrix.jsonl")
    parser.add_argument("--every", type=int, default=1, help="one in so many combinations only")
    arguments = parser.parse_args()
    name = "matrix" if arguments.target == "onnx" else f"matrix_{arguments.target}"
    arguments.rows = arguments.rows or Path("runs") / f"{name}.jsonl"
    torch.set_num_threads(1)
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.rows.read_text().splitlines() if arguments.rows.exists() else []
    done = [json.loads(line) for line in lines]
    wanted = list(rows())[:: arguments.every]
    with arguments.rows.open("a") as log:
        for row in wanted:
            if any(row.items() <= known.items() for known in done):
                continue
            done.append(measure(row, arguments.width, arguments.target))
            log.write(json.dumps(done[-1]) + "\n")
            log.flush()
            print(len(done), "of", len(wanted), done[-1], flush=True)
    quantized = [row for row in done if row["bits"] != FULL_PRECISION]
    record(
        name,
        {
            "target": arguments.target,
            "width": arguments.width,
            "combinations": len(done),
            "quantised": len(quantized),
            "codes_compared": sum(row["codes"] for row in quantized),
            "wrong_codes": sum(row["wrong"] for row in quantized),
            "flipped_verdicts": sum(row["flipped"] for row in done),
            "max_abs_logit_diff": max(row["max_abs_logit_diff"] for row in quantized),
            "max_abs_logit_diff_full_precision": max(
                row["max_abs_logit_diff"] for row in done if row not in quantized
            ),
            "failed": [row for row in done if not row["passed"]],
        },
    )


if __name__ == "__main__":
    main()
