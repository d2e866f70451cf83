"""Measure a built-in checkpoint and write its record, ``models/zoo_data/NAME.json``.

    python benchmarks/zoo_record.py resnet23-w2a2 --data forensics-mini/test [--twin CHECKPOINT]
    python docs/make_tables.py      # the model cards and docs/zoo.md anew

Counts come from the network, the recipe from the checkpoint's header, accuracy and average
precision from the torch detector on every image of ``--data``. What only a person knows
(``--trained``, ``--remarks``) and a twin that is not given anew are kept from the present record if
it is of the same file.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from pathlib import Path

from qmdd.calibration.evaluate import scores_of
from qmdd.models import Detector
from qmdd.models.checkpoint import Checkpoint
from qmdd.models.efficiency import network_cost
from qmdd.models.storage import stored_numbers
from qmdd.models.zoo import FOLDER, entry_of
from qmdd.models.zoo_record import Mean, Record, Score, read_data, read_record
from qmdd.runtime.files import write_atomically
from qmdd.runtime.folder import scan
from qmdd.runtime.metrics import by_generator


def measured(detector: Detector, folder: Path) -> dict[str, Score]:
    """Score of each generator below ``folder``."""
    samples = scan(folder)
    scores = scores_of(
        detector, samples, report=lambda done: print(f"\r{done}/{len(samples)}", end="")
    )
    print()
    found = by_generator(samples, scores)
    return {name: Score(**metrics._asdict()) for name, metrics in found.items()}


def record_of(name: str, folder: Path, twin: Path | None, given: argparse.Namespace) -> Record:
    """The record of the built-in checkpoint ``name``."""
    path = entry_of(name).path
    checkpoint = Checkpoint(path)
    detector = checkpoint.detector()
    cost = network_cost(detector, name, checkpoint.config.bits)
    old, digest = _old(path), checkpoint.sha256()
    if old is not None and old.sha256 != digest:
        old = None
    twins = {}
    if twin is not None:
        scores = measured(Checkpoint(twin).detector(), folder)
        twins = {key: Mean(score.acc, score.ap) for key, score in scores.items()}
    return Record(
        name=name,
        sha256=digest,
        bytes=path.stat().st_size,
        config=json.loads(checkpoint.config.to_json()),
        weights=sum(item.numbers for item in stored_numbers(detector) if item.kind == "weights"),
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        ops=cost.ops,
        side=cost.side,
        recipe=json.loads(checkpoint.metadata.get("recipe", "{}")),
        trained=given.trained if given.trained is not None else (old.trained if old else ""),
        data=given.set,
        results=measured(detector, folder),
        twin=twins or (old.twin if old else {}),
        tools={
            "python": platform.python_version(),
            "torch": metadata.version("torch").split("+")[0],
        },
        remarks=(
            tuple(given.remarks.read_text(encoding="utf-8").splitlines())
            if given.remarks
            else (old.remarks if old else ())
        ),
    )


def _old(path: Path) -> Record | None:
    kept = path.with_suffix(".json")
    return read_record(kept) if kept.exists() else None


def main() -> None:
    """Measure, check against the data's description, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True, help="the data set's test folder")
    parser.add_argument("--set", default="forensics-mini", help="name of its description")
    parser.add_argument("--twin", type=Path, help="checkpoint of the full-precision twin")
    parser.add_argument("--trained", help="a sentence: on what, how long")
    parser.add_argument("--remarks", type=Path, help="Markdown to stand below the results")
    given = parser.parse_args()
    data = read_data(FOLDER, given.set)
    record = record_of(given.name, given.data, given.twin, given)
    for seen in (True, False):
        print("seen" if seen else "unseen", record.mean(data, seen=seen))
    write_atomically(FOLDER / f"{given.name}.json", record.to_json().encode())


if __name__ == "__main__":
    main()
