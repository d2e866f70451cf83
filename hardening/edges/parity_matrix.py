"""Codes of every runtime, by optimisation level, threads, batch, size and versions, as a matrix.

    python -m hardening.edges.parity_matrix --record hardening/results/parity_matrix.json

Every cell compares each code of each image with the source's, as integers. A cell that cannot be
done says why. Other versions of packages are installed from PyPI into ``--work``. An interrupted
run goes on where it was. The exit code is 1 if a code differs or a cell fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qmdd.cli.output import progress
from qmdd.exporter.probes import with_probes
from qmdd.exporter.samples import sample_images
from qmdd.models.zoo import builtin_checkpoint
from qmdd.runtime.bundle import NATIVE_MODEL, Bundle
from qmdd.runtime.native import KERNELS_VARIABLE
from qmdd.runtime.parity import LOGIT_BAR

from .environments import EnvironmentFailure, overlay, variables
from .matrix_exports import ExportJob, export_jobs, exported_by
from .matrix_inputs import write_sets
from .matrix_jobs import NOT_HERE, Job, jobs
from .record import PACKAGES, Rows, write_record
from .whole_set import exported, images_of


def run_job(job: Job, checkpoint: Path, sets: dict[str, Path], work: Path) -> dict[str, Any]:
    """The cells of a job, each with what was found, ``failed`` or ``refused`` and why."""
    if job.packages:
        try:
            place = overlay(work / "packages", dict(job.packages))
        except EnvironmentFailure as error:
            return {"job": job.name, "refused": f"cannot be installed: {error}", "cells": []}
    else:
        place = None
    path = exported(checkpoint, work, [job.target])[job.target]
    bundle = Bundle.open(path)
    model = path / NATIVE_MODEL if job.runtime == "native" else bundle.model_path
    probed = with_probes(model)
    file = work / "model.probed.onnx"
    file.write_bytes(probed.model)
    wanted = {name: str(sets[name]) for name in job.sizes or sets}
    small = {name for name in wanted if min(map(int, name.split("x"))) < job.claims}
    description = {
        "model": str(file),
        "runtime": job.runtime,
        "levels": list(job.levels),
        "threads": list(job.threads),
        "batches": list(job.batches),
        "images": job.images,
        "outputs": ["logit", *probed.names],
        "sets": {name: held for name, held in wanted.items() if name not in small},
    }
    note = work / "job.json"
    note.write_text(json.dumps(description), encoding="utf-8")
    kernels = {KERNELS_VARIABLE: job.kernels} if job.kernels else {}
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.matrix_worker", str(note)],
        env=variables(place, **kernels), capture_output=True, text=True, check=False,
    )  # fmt: skip
    cells = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        cells.append({"failed": f"exit code {done.returncode}: {last[:300]}"})
    why = f"refused: the model takes sides of {job.claims} or more"
    cells += [{"size": name, "refused": why} for name in sorted(small)]
    return {"job": job.name, "cells": cells}


def is_wrong(cell: dict[str, Any]) -> bool:
    """Whether a cell failed or differs from the source."""
    if "refused" in cell:
        return False
    bar = cell.get("logit", float("inf")) <= LOGIT_BAR
    return "failed" in cell or bool(cell["wrong"] or cell["flipped"]) or not bar


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All jobs in short, and in full what failed or was refused."""
    found: list[dict[str, Any]] = []
    failed, refused = [], [{"cell": name, "why": why} for name, why in NOT_HERE.items()]
    for row in rows:
        cells = row["cells"]
        ran = [cell for cell in cells if "codes" in cell]
        found.append(
            {
                "job": row["job"],
                "cells": len(ran),
                "codes": sum(cell["codes"] for cell in ran),
                "wrong": sum(cell["wrong"] for cell in ran),
                "flipped": sum(cell["flipped"] for cell in ran),
                "largest_logit_difference": max((cell["logit"] for cell in ran), default=None),
                **{
                    key: sorted({cell[key] for cell in ran if key in cell})
                    for key in ("level", "threads", "batch", "size")
                },
                **({"note": row["note"]} if "note" in row else {}),
            }
        )
        failed += [{"job": row["job"], **cell} for cell in cells if is_wrong(cell)]
        refused += [{"cell": f"{row['job']}, {cell.get('size', '')}", "why": cell["refused"]}
                    for cell in cells if "refused" in cell]  # fmt: skip
        if "refused" in row:
            refused.append({"cell": row["job"], "why": row["refused"]})
    return {
        "cells": sum(job["cells"] for job in found),
        "codes": sum(job["codes"] for job in found),
        "wrong": sum(job["wrong"] for job in found),
        "flipped": sum(job["flipped"] for job in found),
        "failed": failed,
        "not_done": refused,
        "jobs": found,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hardening.edges.parity_matrix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = os.environ.get("QMDD_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) / "test" if data else None,
                        help="images; default: test in QMDD_DATA, else the samples")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, default=builtin_checkpoint("resnet23", 2))
    parser.add_argument("--work", type=Path, default=Path("runs/edges"),
                        help="bundles, inputs and packages (%(default)s)")  # fmt: skip
    parser.add_argument("--rows", type=Path, default=Path("runs/parity_matrix.jsonl"),
                        help="what is done already (%(default)s)")  # fmt: skip
    parser.add_argument("--only", default="", help="jobs whose name holds this")
    parser.add_argument("--record", type=Path, help="write the result to this file")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Fill the matrix; the exit code."""
    arguments = _parser().parse_args(argv)
    images = images_of(arguments.data)[::53] if arguments.data else sample_images()
    work = arguments.work.resolve()
    sets = write_sets(arguments.checkpoint, images, work / "inputs")
    rows = Rows(arguments.rows)
    chosen = [job for job in jobs() if arguments.only in job.name]
    exports = [job for job in export_jobs() if arguments.only in job.name]
    with progress() as report:
        everything: list[Job | ExportJob] = [*chosen, *exports]
        for number, job in enumerate(everything):
            report("jobs", number, len(everything))
            if rows.find(job=job.name) is not None:
                continue
            started = time.perf_counter()
            if isinstance(job, Job):
                row = run_job(job, arguments.checkpoint, sets, work)
            else:
                row = exported_by(job, arguments.checkpoint, work)
            row["seconds"] = round(time.perf_counter() - started)
            rows.add(row)
            bad = sum(map(is_wrong, row["cells"]))
            sys.stdout.write(f"{job.name}: {len(row['cells'])} cells, {bad} wrong or failed\n")
            sys.stdout.flush()
    result = summary(rows.rows)
    if arguments.record is not None:
        named = {"checkpoint": arguments.checkpoint.name, **result}
        write_record(arguments.record, named, (*PACKAGES, "openvino", "qonnx"))
    sys.stdout.write(
        f"{result['wrong']} wrong of {result['codes']} codes in {result['cells']} cells, "
        f"{len(result['failed'])} failed, {len(result['not_done'])} not done\n"
    )
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
