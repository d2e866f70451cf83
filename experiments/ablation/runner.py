"""Run a cell: its full-precision start (shared), its training, its scores on ``test/``.

Everything is resumable: a cell whose result is written is not run again, a run that was killed goes
on from its last epoch, and what it ends with is what an unbroken run ends with (see
:mod:`qmdd.calibration.train`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qmdd.calibration.evaluate import scores_of
from qmdd.calibration.recipe import Recipe
from qmdd.calibration.train import STATE, Progress, Trainer, latent_from, save_detector
from qmdd.models import Detector
from qmdd.models.checkpoint import Checkpoint
from qmdd.runtime.folder import digest, scan
from qmdd.runtime.metrics import by_generator

from .cells import Cell
from .curve import Curve
from .errors import ExperimentError
from .results import Line, provenance, read_cells, rounded, write_cell

LATENT, LOCK = "latent.safetensors", ".lock"

#: ``report(what, done, total)``
Report = Callable[[str, int, int], None]


def _silent(_what: str, _done: int, _total: int) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Where cells are run.

    Attributes:
        recipe: both stages that every cell is trained by.
        data: image folder with ``train/`` and ``test/`` in the field's layout.
        runs: folder of the runs.
        results: folder of the results.
    """

    recipe: Recipe
    data: Path
    runs: Path
    results: Path

    def digests(self) -> dict[str, str]:
        """What data a result belongs to, by split."""
        found = {}
        for split in ("train", "test"):
            folder = self.data / split
            found[split] = digest(folder, scan(folder))
        return found

    def identity(self, cell: Cell) -> dict[str, Any]:
        """What a result must have been made by to count as this cell's."""
        plain = {
            "recipe": cell.recipe(self.recipe).to_dict(),
            "start": cell.start_recipe(self.recipe).to_dict(),
            "data": self.digests(),
        }
        same: dict[str, Any] = json.loads(json.dumps(plain))
        return same

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder of the runs; freed by the system when the process ends, however it does.

        Raises:
            ExperimentError: another process runs cells there.
        """
        import fcntl

        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / LOCK).open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ExperimentError(
                    f"{self.runs}: another process runs cells here; wait for it, or give this one "
                    "a folder of its own with --runs"
                ) from error
            yield


def done(workshop: Workshop, cell: Cell) -> Line | None:
    """The cell's result if there is one.

    Raises:
        ExperimentError: there is one, of another recipe or other data.
    """
    line = read_cells(workshop.results).get(cell.name)
    if line is None:
        return None
    for key, want in workshop.identity(cell).items():
        if line.get(key) != want:
            raise ExperimentError(
                f"{workshop.results}: the result of {cell.name} has another {key}; keep it and "
                "choose another folder with --results and --runs, or remove its line"
            )
    return line


def run_cell(workshop: Workshop, cell: Cell, report: Report = _silent) -> Line:
    """The cell's result, from the results if it is there, else by training and measuring."""
    found = done(workshop, cell)
    if found is not None:
        return found
    start, start_curve = start_of(workshop, cell, report)
    folder = workshop.runs / cell.name
    detector, curve = _trained(
        workshop, folder, cell.recipe(workshop.recipe), start, report, cell.name
    )
    means, generators = _measure(workshop, detector, report)
    line = {
        "cell": cell.name,
        **dataclasses.asdict(cell),
        **workshop.identity(cell),
        "mean": means,
        "generators": generators,
        "loss": curve.losses,
        "start_loss": start_curve.losses,
        "seconds": round(curve.seconds, 1),
        "start_seconds": round(start_curve.seconds, 1),
        **provenance(),
    }
    line = rounded(line)
    write_cell(workshop.results, line)
    return line


def start_of(workshop: Workshop, cell: Cell, report: Report = _silent) -> tuple[Detector, Curve]:
    """The full-precision detector that ``cell`` starts from, trained where it is not there yet."""
    recipe = cell.start_recipe(workshop.recipe)
    return _trained(workshop, workshop.runs / cell.start, recipe, None, report, cell.start)


def _trained(
    workshop: Workshop,
    folder: Path,
    recipe: Recipe,
    init: Detector | None,
    report: Report,
    name: str,
) -> tuple[Detector, Curve]:
    """The detector of ``recipe``, trained in ``folder``; read from there once it is whole."""
    train = workshop.data / "train"
    samples = scan(train)
    per_epoch = max(1, len(samples) // recipe.stages[0].batch)
    folder.mkdir(parents=True, exist_ok=True)
    curve = Curve(folder, per_epoch)
    notes = {
        "recipe": json.dumps(recipe.to_dict(), sort_keys=True),
        "data": digest(train, samples),
    }
    latent = folder / LATENT
    if not latent.exists():

        def told(progress: Progress) -> None:
            curve.step(progress)
            report(f"{name}, loss {progress.loss:.3f}", progress.step, progress.steps)

        trainer = Trainer(recipe, train, folder, init=init, save_every=per_epoch, report=told)
        save_detector(trainer.run(), latent, notes)
    metadata = Checkpoint(latent).metadata
    if any(metadata.get(key) != value for key, value in notes.items()):
        raise ExperimentError(
            f"{latent}: trained by another recipe or on other data; remove {folder}, or choose "
            "another folder with --runs"
        )
    with contextlib.suppress(FileNotFoundError):
        (folder / STATE).unlink()  # three times the checkpoint, and no longer needed
    return latent_from(latent), curve


def _measure(
    workshop: Workshop, detector: Detector, report: Report
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]]]:
    """Means over seen, unseen and all generators of ``test/``, and each generator's metrics."""
    samples = scan(workshop.data / "test")
    known = {sample.generator for sample in scan(workshop.data / "train")}
    scores = scores_of(
        detector, samples, report=lambda count: report("measuring", count, len(samples))
    )
    found = {
        name: {**metrics._asdict(), "seen": name in known}
        for name, metrics in by_generator(samples, scores).items()
    }
    groups = {
        "seen": [m for m in found.values() if m["seen"]],
        "unseen": [m for m in found.values() if not m["seen"]],
        "all": list(found.values()),
    }
    means = {
        group: {key: _mean([m[key] for m in members]) for key in ("acc", "ap")}
        for group, members in groups.items()
        if members
    }
    return means, found


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
