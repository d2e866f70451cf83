"""What is known of a built-in checkpoint, as plain data in a JSON file beside it.

A record belongs to one file, named by its SHA-256. Its figures are counted (:mod:`.efficiency`) or
measured (accuracy and average precision by generator); ``benchmarks/zoo_record.py`` writes it.
What data it was trained and measured on is described once for all, in ``data-NAME.json``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ModelError

#: The record's own version.
SCHEMA = 1
_MAX_BYTES = 1 << 20


class Score(NamedTuple):
    """Accuracy at 0.5 and average precision, 0..1, of images of one generator, both classes."""

    images: int
    acc: float
    ap: float
    real_acc: float
    fake_acc: float


class Mean(NamedTuple):
    """Means over generators."""

    acc: float
    ap: float


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set: its name, paragraphs about it, its generators, and the biases known.

    ``generators`` maps a folder's name to ``what``, ``upsampling`` and ``trained`` (whether images
    of it were in training: *seen*).
    """

    name: str
    about: tuple[str, ...]
    generators: dict[str, dict[str, Any]]
    biases: tuple[str, ...]

    def seen(self, generator: str) -> bool:
        """Whether images of ``generator`` were in training; ModelError if it is not described."""
        if generator not in self.generators:
            raise ModelError(f"the description of {self.name} has no generator {generator!r}")
        return bool(self.generators[generator]["trained"])


@dataclasses.dataclass(frozen=True)
class Record:
    """One checkpoint.

    Attributes:
        name: its file's name without the ending.
        sha256: of the file, 64 hexadecimal digits.
        bytes: of the file.
        config: fields of :class:`.config.DetectorConfig`.
        weights: weights of convolutions.
        parameters: of the full-precision twin.
        multiply_adds: for one image of ``side`` pixels.
        ops: likewise, by the convention of Table 4.
        side: of the image, pixels.
        recipe: what it was trained with, as its header has it.
        trained: on what and how long, a sentence; may be empty.
        data: name of the data set.
        results: score of each generator in its test part.
        twin: the full-precision twin's scores (``acc`` and ``ap`` at least) by generator; may be
            empty.
        tools: versions that measured it.
        remarks: further lines of Markdown for the card.
    """

    name: str
    sha256: str
    bytes: int
    config: dict[str, Any]
    weights: int
    parameters: int
    multiply_adds: int
    ops: float
    side: int
    recipe: dict[str, Any]
    trained: str
    data: str
    results: dict[str, Score]
    twin: dict[str, Mean]
    tools: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def arch(self) -> str:
        """The detector's architecture."""
        return str(self.config["arch"])

    @property
    def bits(self) -> int:
        """Width of weights and activations."""
        return int(self.config["bits"])

    def mean(self, data: Data, *, seen: bool, twin: bool = False) -> Mean | None:
        """Mean over the generators seen, or not seen, in training; ``None`` over none."""
        scores: Mapping[str, Score | Mean] = self.twin if twin else self.results
        own = [score for name, score in scores.items() if data.seen(name) == seen]
        if not own:
            return None
        return Mean(
            math.fsum(s.acc for s in own) / len(own), math.fsum(s.ap for s in own) / len(own)
        )

    def to_json(self) -> str:
        """The file's text."""
        plain = dataclasses.asdict(self)
        plain["results"] = {name: score._asdict() for name, score in self.results.items()}
        plain["twin"] = {name: score._asdict() for name, score in self.twin.items()}
        return json.dumps({"schema": SCHEMA, **plain}, indent=2, allow_nan=False) + "\n"


def read_record(path: Path) -> Record:
    """Read and check a record.

    Raises:
        ModelError: missing, not JSON, or a field that is missing, unknown or of the wrong kind.
    """
    fields = _object(path)
    if fields.pop("schema", None) != SCHEMA:
        raise ModelError(f"{path}: not a record of schema {SCHEMA}")
    _check(path, fields, _RECORD)
    fields["results"] = {
        name: Score(**_checked(path, score, _SCORE)) for name, score in fields["results"].items()
    }
    fields["twin"] = {
        name: Mean(**_checked(path, score, _MEAN)) for name, score in fields["twin"].items()
    }
    fields["remarks"] = tuple(fields["remarks"])
    record = Record(**fields)
    if record.name != path.stem:
        raise ModelError(f"{path}: a record of {record.name!r}, by another file's name")
    return record


def read_data(folder: Path, name: str) -> Data:
    """Read the description of the data set ``name``.

    Raises:
        ModelError: as :func:`read_record`.
    """
    path = folder / f"data-{name}.json"
    fields = _object(path)
    _check(path, fields, _DATA)
    for generator in fields["generators"].values():
        _check(path, generator, _GENERATOR)
    return Data(**{**fields, "about": tuple(fields["about"]), "biases": tuple(fields["biases"])})


def _object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        found = json.loads(data) if len(data) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: must hold a JSON object of at most {_MAX_BYTES} bytes")
    return found


def _count(value: object) -> bool:
    return type(value) is int and value > 0


def _share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _objects(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _config(value: object) -> bool:
    return isinstance(value, dict) and _text(value.get("arch")) and _count(value.get("bits"))


_Fields = dict[str, Callable[[Any], bool]]
_MEAN: _Fields = {"acc": _share, "ap": _share}
_SCORE: _Fields = {"images": _count, **_MEAN, "real_acc": _share, "fake_acc": _share}
_GENERATOR: _Fields = {
    "what": _text,
    "upsampling": _text,
    "trained": lambda value: type(value) is bool,
}
_DATA: _Fields = {"name": _text, "about": _texts, "generators": _objects, "biases": _texts}
_RECORD: _Fields = {
    "name": _text,
    "sha256": lambda value: _text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "bytes": _count,
    "config": _config,
    "weights": _count,
    "parameters": _count,
    "multiply_adds": _count,
    "ops": lambda value: type(value) in (int, float) and 0 < value < math.inf,
    "side": _count,
    "recipe": lambda value: isinstance(value, dict),
    "trained": _text,
    "data": lambda value: _text(value) and re.fullmatch("[a-z0-9-]+", value) is not None,
    "results": _objects,
    "twin": _objects,
    "tools": lambda value: isinstance(value, dict) and all(map(_text, value.values())),
    "remarks": _texts,
}


def _check(path: Path, fields: Mapping[str, Any], wanted: _Fields) -> None:
    if fields.keys() != wanted.keys():
        odd = sorted(fields.keys() ^ wanted.keys())
        raise ModelError(f"{path}: fields missing or unknown: {', '.join(odd)}")
    for name, fits in wanted.items():
        if not fits(fields[name]):
            raise ModelError(f"{path}: {name} is {str(fields[name])[:60]!r}, which it cannot be")


def _checked(path: Path, fields: dict[str, Any], wanted: _Fields) -> dict[str, Any]:
    _check(path, fields, wanted)
    return fields
