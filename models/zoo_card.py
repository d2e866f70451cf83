"""Model cards and the list of checkpoints: text from records, data descriptions, a template."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .tables import Table, giga
from .zoo import FOLDER, Entry, builtin_checkpoints
from .zoo_record import Data, Mean, Record, read_data, read_record

_TITLES = {
    "resnet23": "ResNet-23",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "mobilenetv2": "MobileNetV2",
}
_KINDS = {"n2uq": "N2UQ", "lsq": "LSQ", "minmax": "MinMax", "binary": "ReActNet's sign"}


def cards() -> dict[Path, str]:
    """What the card of every built-in checkpoint that has a record should hold."""
    found = {}
    for path in builtin_checkpoints():
        if path.with_suffix(".json").exists():
            record = read_record(path.with_suffix(".json"))
            found[path.with_suffix(".md")] = card(record, read_data(FOLDER, record.data))
    return found


def zoo_table(found: Sequence[Entry]) -> Table:
    """One row a built-in checkpoint; what has no record is blank."""
    columns = ("name", "network", "bits", "parameters", "bytes", "multiply-adds G", "OPs G")
    scores = tuple(f"{what} {part}" for part in ("seen", "unseen") for what in ("Acc", "AP"))
    rows = []
    for entry in found:
        counted, means = ("", "", ""), ("", "", "", "")
        if entry.record is not None:
            record, data = entry.record, read_data(FOLDER, entry.record.data)
            counted = (f"{record.parameters:,}", giga(record.multiply_adds), giga(record.ops))
            seen, unseen = (record.mean(data, seen=part) for part in (True, False))
            means = (*_pair(seen), *_pair(unseen))
        size = f"{entry.bytes:,}"
        network = (str(entry.config["arch"]), str(entry.config["bits"]))
        rows.append((entry.name, *network, counted[0], size, *counted[1:], *means))
    notes = [f"{entry.name}: {entry.problem}" for entry in found if entry.problem]
    return Table("Built-in checkpoints", (*columns, *scores), rows, notes)


def zoo_dict(entry: Entry) -> dict[str, Any]:
    """The same as plain data; ``record`` and the means are null where there is none."""
    record, means = entry.record, {}
    if record is not None:
        data = read_data(FOLDER, record.data)
        for part, seen in (("seen", True), ("unseen", False)):
            mean = record.mean(data, seen=seen)
            means[part] = mean and mean._asdict()
    return {
        "name": entry.name,
        "arch": entry.config["arch"],
        "bits": entry.config["bits"],
        "file": str(entry.path),
        "bytes": entry.bytes,
        "mean": means or None,
        "record": record and json.loads(record.to_json()),
        "problem": entry.problem,
    }


def card(record: Record, data: Data) -> str:
    """The model card of ``record``; every figure in it comes from there."""
    template = (FOLDER / "card-template.md").read_text(encoding="utf-8")
    remarks = "\n".join(record.remarks).strip()
    return string.Template(template).substitute(
        name=record.name,
        summary=_summary(record),
        figures=_figures(record).markdown(),
        command=f"qmdd export --arch {record.arch} --bits {record.bits}",
        about="\n\n".join(data.about),
        generators=_generators(data).markdown(),
        biases="; ".join(data.biases),
        recipe=_recipe(record),
        results=_results(record, data).markdown(),
        remarks=f"{remarks}\n\n" if remarks else "",
    )


def _summary(record: Record) -> str:
    config = record.config
    activation = _KINDS.get(config["activation"], config["activation"])
    parts = [
        f"A {_TITLES.get(record.arch, record.arch)} deepfake detector on "
        f"{str(config['representation']).upper()}"
    ]
    if config["cqb"]:
        parts.append(" with Connected Quantized Blocks")
    parts.append(
        f", {record.bits}-bit weights and {record.bits}-bit activations "
        f"({activation}{' under SLR' if config['slr'] else ''}), frozen and packed: "
        f"{record.weights / 1e6:.1f} million weights in {record.bytes:,} bytes."
    )
    return "".join(parts)


def _figures(record: Record) -> Table:
    rows = [
        ("file", f"`{record.name}.safetensors`, {record.bytes:,} bytes"),
        ("SHA-256", f"`{record.sha256}`"),
        ("parameters", f"{record.parameters:,}"),
        (f"multiply-adds, image of {record.side} pixels", f"{giga(record.multiply_adds)} G"),
        ("OPs by the convention of the paper's Table 4", f"{giga(record.ops)} G"),
    ]
    return Table("", ("what", "figure"), rows)


def _generators(data: Data) -> Table:
    rows = [
        (f"`{name}`: {entry['what']}", entry["upsampling"], "yes" if entry["trained"] else "no")
        for name, entry in data.generators.items()
    ]
    return Table("", ("generator", "up-sampling", "in training"), rows)


def _recipe(record: Record) -> str:
    """The stages as they stand in the checkpoint's header, and how to train one like it."""
    recipe: Mapping[str, Any] = record.recipe
    start = recipe.get("start")
    lines = ["As it stands in the checkpoint's header:", ""]
    if start:
        lines += [f"It starts from the weights of `{start}`.", ""]
    stages = [stage for stage in recipe.get("stages", ()) if isinstance(stage, dict)]
    keys = list(dict.fromkeys(key for stage in stages for key in stage))
    if stages:
        columns = ("stage", *keys)
        rows = [
            (str(number), *(_plain(stage.get(key)) for key in keys))
            for number, stage in enumerate(stages, 1)
        ]
        lines += [Table("", columns, rows).markdown(), ""]
    rest = {key: value for key, value in recipe.items() if key not in ("stages", "start")}
    if rest:
        lines += [", ".join(f"{key} {_plain(value)}" for key, value in rest.items()) + ".", ""]
    lines.append("AdamW, cosine to 0; batch-norm statistics taken anew at the end.")
    if record.trained:
        lines.append(record.trained)
    lines += [
        "",
        "<!-- not run: it needs the data set, and time -->",
        "```sh",
        f"qmdd train --data {record.data}/train --recipe {record.name} --eval {record.data}/test",
        "```",
        "",
        "A rerun gives the same weights to the bit only on the same processor with the same number "
        "of threads (sums in training are rounded in another order elsewhere).",
    ]
    return "\n".join(lines)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _results(record: Record, data: Data) -> Table:
    columns = ("generator", "images", "Acc", "AP", "Acc of real", "Acc of fake")
    twins = ("Acc, twin", "AP, twin") if record.twin else ()
    rows: list[tuple[str, ...]] = []
    for seen in (True, False):
        for name in sorted(record.results):
            if data.seen(name) == seen:
                score, twin = record.results[name], record.twin.get(name)
                rows.append(
                    (
                        f"`{name}`",
                        str(score.images),
                        *(f"{value:.3f}" for value in score[1:]),
                        *(_pair(twin) if record.twin else ()),
                    )
                )
        mean = record.mean(data, seen=seen)
        if mean is not None:
            other = record.mean(data, seen=seen, twin=True)
            title = f"**mean, {'seen' if seen else 'unseen'}**"
            rows.append((title, "", *_pair(mean), "", "", *(_pair(other) if record.twin else ())))
    notes = []
    if record.twin:
        notes.append("The twin is the same topology without quantizers, trained likewise.")
    smallest = min(score.images for score in record.results.values())
    notes.append(f"One image is up to {1 / smallest:.2%} of a generator's accuracy.")
    return Table("", (*columns, *twins), rows, notes)


def _pair(mean: Mean | None) -> tuple[str, str]:
    return ("", "") if mean is None else (f"{mean.acc:.3f}", f"{mean.ap:.3f}")
