"""Exports with other versions of onnx: the same bytes, or a bundle that passes its own parity."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qmdd.runtime.bundle import MODEL

from .environments import OLDEST_EXPORT, ONNXES, EnvironmentFailure, overlay, variables
from .whole_set import exported

_TARGETS = ("onnx", "cpu")
_COMMAND = "from qmdd.cli.main import main; main()"


@dataclasses.dataclass(frozen=True)
class ExportJob:
    """An export of one target by other versions of packages."""

    target: str
    packages: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Such as ``export onnx, onnx 1.20.0``."""
        versions = ", ".join(f"{package} {version}" for package, version in self.packages)
        return f"export {self.target}, {versions}"


def export_jobs() -> Iterator[ExportJob]:
    """Every version of onnx alone, then the oldest of all that exports."""
    sets = [(("onnx", version),) for version in ONNXES]
    for packages in (*sets, tuple(OLDEST_EXPORT.items())):
        for target in _TARGETS:
            yield ExportJob(target, packages)


def exported_by(job: ExportJob, checkpoint: Path, work: Path) -> dict[str, Any]:
    """Export by a process that sees these versions; it compares with the source itself."""
    try:
        place = overlay(work / "packages", dict(job.packages))
    except EnvironmentFailure as error:
        return {"job": job.name, "refused": f"cannot be installed: {error}", "cells": []}
    ours = exported(checkpoint, work, [job.target])[job.target] / MODEL
    bundle = work / "exported"
    shutil.rmtree(bundle, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "export", "--checkpoint", str(checkpoint),
         "--target", job.target, "-o", str(bundle), "--json"],
        env=variables(place), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"job": job.name, "cells": [{"failed": last[:300]}]}
    parity = json.loads(done.stdout)["parity"]
    cells = [
        {
            "level": tier["tier"],
            "images": tier["images"],
            "codes": tier["codes_compared"],
            "wrong": tier["wrong_codes"],
            "flipped": tier["flipped_verdicts"],
            "logit": tier["max_abs_logit_diff"],
        }
        for tier in parity
    ]
    same = (bundle / MODEL).read_bytes() == ours.read_bytes()
    return {"job": job.name, "cells": cells, "note": f"{MODEL}: {'the same' if same else 'other'} "
            "bytes as by the tested versions"}  # fmt: skip
