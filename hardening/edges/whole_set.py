"""Parity over a whole folder of images, every runtime beside the source, which is run once.

    python -m hardening.edges.whole_set --data FOLDER --record hardening/results/whole_set.json

Each image goes through the checkpoint's model in PyTorch and, at once, through its bundles: the
interchange form in ONNX Runtime with its optimiser off and on, the form for CPUs by standard
operators and by the native ones, OpenVINO's in OpenVINO. An interrupted run goes on where it was.
The exit code is 1 if a code differs, a verdict flips, or a logit misses its bar.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qmdd.cli.output import progress
from qmdd.exporter.export import export_bundle
from qmdd.exporter.parity import Side, batches, side_of, source_outputs
from qmdd.models.checkpoint import load_checkpoint
from qmdd.models.zoo import builtin_checkpoint
from qmdd.runtime.bundle import NATIVE_MODEL, Bundle
from qmdd.runtime.native import library_path

from ..records import record_result
from .rows import PACKAGES, Rows

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
#: Images between two rows.
CHUNK = 20
TARGETS = ("onnx", "cpu", "openvino")


def exported(checkpoint: Path, folder: Path, targets: Sequence[str]) -> dict[str, Path]:
    """Bundles of ``checkpoint`` by target, made in ``folder`` unless they are there."""
    found = {}
    for target in targets:
        found[target] = folder / f"{checkpoint.stem}-{target}"
        if not (found[target] / "manifest.json").is_file():
            export_bundle(checkpoint, found[target], target=target, verify=False, force=True)
    return found


def images_of(data: Path) -> list[Path]:
    """Every image below ``data``, in the order of their names."""
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES)


#: What is compared: a bundle's target, the tier, and what runs it.
SIDES = (
    ("onnx", "strict", "onnxruntime"),
    ("onnx", "deployed", "onnxruntime"),
    ("cpu", "deployed", "onnxruntime"),
    ("cpu", "native", "native"),
    ("openvino", "deployed", "openvino"),
)


class Comparison:
    """The source and all sides, ready to be given images."""

    def __init__(self, checkpoint: Path, bundles: dict[str, Path], threads: int) -> None:
        self._network = load_checkpoint(checkpoint).eval()
        self._bundles = {target: Bundle.open(path) for target, path in bundles.items()}
        self._threads = threads

    def _sides(self) -> Iterator[tuple[str, Side]]:
        for target, tier, runtime in SIDES:
            bundle = self._bundles[target]
            model = bundle.path / NATIVE_MODEL if tier == "native" else bundle.model_path
            if tier != "native" or (model.is_file() and library_path() is not None):
                side = side_of(self._network, model, tier, runtime, self._threads)
                yield f"{target} {tier}", side

    def run(self, images: list[Path]) -> dict[str, dict[str, Any]]:
        """What each side gives on ``images``, by ``<target> <tier>``."""
        sides = dict(self._sides())
        # OpenVINO's needs the largest images of all: every side gets the same ones.
        contract = max(
            (bundle.manifest["input"] for bundle in self._bundles.values()),
            key=lambda item: int(item["min_side"]),
        )
        for batch in batches(images, contract):
            logits, codes = source_outputs(self._network, batch)
            for side in sides.values():
                side.add(batch, logits, codes)
        found = {}
        for name, side in sides.items():
            found[name] = side.result.to_dict()
            del found[name]["layers"]
            side.close()
        return found


def _add(total: dict[str, Any], row: dict[str, Any]) -> None:
    for name in ("images", "codes_compared", "wrong_codes", "flipped_verdicts"):
        total[name] = total.get(name, 0) + row[name]
    total["max_abs_logit_diff"] = max(
        total.get("max_abs_logit_diff", 0.0), row["max_abs_logit_diff"]
    )
    total["runtime"], total["logit_bar"] = row["runtime"], row["logit_bar"]


def totals(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of all chunks, added up by tier."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        for tier, values in row["tiers"].items():
            _add(found.setdefault(tier, {}), values)
    return found


def passed(tiers: dict[str, dict[str, Any]]) -> bool:
    """Whether no code differs, no verdict flips and every logit is within its bar."""
    return bool(tiers) and all(
        not row["wrong_codes"]
        and not row["flipped_verdicts"]
        and row["max_abs_logit_diff"] <= row["logit_bar"]
        for row in tiers.values()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hardening.edges.whole_set",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = os.environ.get("QMDD_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) / "test" if data else None,
                        help="folder of images; default: test in QMDD_DATA")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, default=builtin_checkpoint("resnet23", 2))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bundles", type=Path, default=Path("runs/edges"),
                        help="where bundles are made and kept (%(default)s)")  # fmt: skip
    parser.add_argument("--rows", type=Path, default=Path("runs/whole_set.jsonl"))
    parser.add_argument("--record", type=Path, help="write the result to this file")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Compare; the exit code."""
    import torch

    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.data is None:
        parser.error("give the folder of images: --data or QMDD_DATA")
    torch.set_num_threads(arguments.threads)
    images = images_of(arguments.data)
    bundles = exported(arguments.checkpoint, arguments.bundles, TARGETS)
    comparison = Comparison(arguments.checkpoint, bundles, arguments.threads)
    rows = Rows(arguments.rows)
    with progress() as report:
        for first in range(0, len(images), CHUNK):
            report("images", first, len(images))
            if rows.find(first=first) is None:
                started = time.perf_counter()
                chunk = images[first : first + CHUNK]
                tiers = comparison.run(chunk)
                seconds = round(time.perf_counter() - started, 1)
                rows.add({"first": first, "seconds": seconds, "tiers": tiers})
    found = totals(rows.rows)
    result = {"checkpoint": arguments.checkpoint.name, "images": len(images),
              "threads": arguments.threads, "tiers": found}  # fmt: skip
    if arguments.record is not None:
        record_result(arguments.record, result, (*PACKAGES, "openvino"))
    for tier, row in found.items():
        sys.stdout.write(f"{tier}: {row['wrong_codes']} wrong of {row['codes_compared']} codes\n")
    return 0 if passed(found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
