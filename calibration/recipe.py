"""Recipes: how a detector is trained, as a TOML file that stands beside the result."""

from __future__ import annotations

import dataclasses
import math
import os
import stat
import sys
from pathlib import Path
from typing import Any

from ..models import DetectorConfig, ModelError
from ..models.quantizers import FULL_PRECISION
from .errors import CalibrationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Larger recipes are refused unread.
_MAX_BYTES = 1 << 20
#: What torch takes for a seed, with room for the number of a stage.
_MAX_SEED = (1 << 63) - 1
PRECISIONS = ("float32", "bfloat16")
#: What a field's annotation takes, and how that is called.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
}


def _check_types(data: Stage | Recipe) -> None:
    for field in dataclasses.fields(data):
        value, known = getattr(data, field.name), _TYPES.get(str(field.type))
        if known is not None and type(value) not in known[0]:
            raise CalibrationError(f"recipe: {field.name}={value!r} must be {known[1]}")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stretch of training at one width.

    Attributes:
        bits: width of weights and activations; 32 trains in full precision.
        epochs: passes over the data.
        lr: AdamW's peak learning rate; it falls to 0 along a cosine after ``warmup`` steps.
        batch: images a step.
        crop: side of the square crops, pixels, even.
        even: crop only at even offsets.
        turn: quarter turns beside flips.
        weight_decay: on convolution and linear weights only.
        warmup: steps over which the learning rate rises from 0.
        clip: largest norm of the gradient.
        resynthesis: share of the fakes that a random up-sampling network makes anew.
    """

    bits: int
    epochs: int
    lr: float
    batch: int = 16
    crop: int = 128
    even: bool = False
    turn: bool = True
    weight_decay: float = 0.01
    warmup: int = 50
    clip: float = 5.0
    resynthesis: float = 0.0

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("epochs", "batch", "crop"):
            if getattr(self, name) < 1:
                raise CalibrationError(f"recipe: {name} must be at least 1")
        if self.crop % 2 or self.crop < 32:
            raise CalibrationError("recipe: crop must be even and at least 32 pixels")
        if not 0 < self.lr < 1:
            raise CalibrationError("recipe: lr must lie between 0 and 1")
        if not 0 <= self.resynthesis <= 1:
            raise CalibrationError("recipe: resynthesis must lie between 0 and 1")
        if not (0 <= self.weight_decay < 1 and self.warmup >= 0):
            raise CalibrationError("recipe: weight_decay and warmup must not be negative")
        if not 0 < self.clip < math.inf:
            raise CalibrationError("recipe: clip must be above 0")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Model, seed and stages; each stage starts from the weights that the one before ended with.

    ``start`` names the recipe whose result the first stage starts from; empty: random weights.
    ``layer_bits`` are widths that differ from a quantised stage's, by layer: in a TOML file the
    table ``[layer_bits]``, last in it.
    """

    stages: tuple[Stage, ...]
    arch: str = "resnet23"
    start: str = ""
    activation: str = ""
    weight: str = ""
    slr: bool = True
    cqb: bool = True
    representation: str = "npr"
    width: float = 1.0
    layer_bits: tuple[tuple[str, int], ...] = ()
    seed: int = 0
    precision: str = "float32"
    #: Images over which the batch-norm statistics are taken anew at the end (256-pixel crops).
    statistics: int = 400

    def __post_init__(self) -> None:
        _check_types(self)
        if self.seed < 0 or self.statistics < 0:
            raise CalibrationError("recipe: seed and statistics must not be negative")
        if self.seed > _MAX_SEED:
            raise CalibrationError(f"recipe: seed must be at most {_MAX_SEED}")
        if not self.stages:
            raise CalibrationError("recipe: it needs at least one [[stage]]")
        if self.precision not in PRECISIONS:
            raise CalibrationError(f"recipe: precision must be one of {', '.join(PRECISIONS)}")
        for stage in self.stages:
            self.config(stage.bits)

    def config(self, bits: int) -> DetectorConfig:
        """The detector's configuration at ``bits``."""
        try:
            return DetectorConfig(
                arch=self.arch,
                bits=bits,
                activation=self.activation,
                weight=self.weight,
                slr=self.slr,
                cqb=self.cqb,
                representation=self.representation,
                width=self.width,
                layer_bits=self.layer_bits if bits != FULL_PRECISION else (),
            )
        except ModelError as error:
            raise CalibrationError(f"recipe: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as stored with the run; ``layer_bits`` only where there are any."""
        fields = dataclasses.asdict(self)
        if not fields.pop("layer_bits"):
            return fields
        return {**fields, "layer_bits": dict(self.layer_bits)}


def recipe_from_dict(data: dict[str, Any]) -> Recipe:
    """Build a recipe from TOML or JSON data; :class:`CalibrationError` names a wrong key."""
    fields = dict(data)
    widths = fields.pop("layer_bits", {})
    if not isinstance(widths, dict):
        raise CalibrationError("recipe: layer_bits must be a table of widths by layer")
    fields["layer_bits"] = tuple(sorted(widths.items()))
    stages = fields.pop("stage", fields.pop("stages", []))
    try:
        return Recipe(stages=tuple(Stage(**stage) for stage in stages), **fields)
    except TypeError as error:
        known = sorted(f.name for f in dataclasses.fields(Stage))
        raise CalibrationError(f"recipe: {error}; a [[stage]] knows {', '.join(known)}") from error


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file.

    Raises:
        CalibrationError: missing, too large, not TOML, or not a recipe.
    """
    try:
        status = os.stat(path)
        special = not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))
        if special or status.st_size > _MAX_BYTES:
            raise CalibrationError(f"{path}: not a recipe, which is a file of at most 1 MiB")
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        _check_numbers(data)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOML's and Unicode's are ValueErrors
        raise CalibrationError(f"{path}: not a TOML recipe: {error}") from error
    return recipe_from_dict(data)


def _check_numbers(data: object) -> None:
    """TOML's whole numbers have 64 bits; Python reads longer ones, and cannot always print them."""
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            _check_numbers(item)
    elif isinstance(data, int) and not -(1 << 63) <= data < 1 << 63:
        raise ValueError("a whole number of more than 64 bits")


def default_recipe(bits: int, arch: str = "resnet23") -> Recipe:
    """Full precision first, then quantised from its weights; what ``qmdd train`` does unasked.

    >>> [stage.bits for stage in default_recipe(2).stages]
    [32, 2]
    """
    stages = [Stage(bits=32, epochs=30, lr=1e-3)]
    if bits != 32:
        stages.append(Stage(bits=bits, epochs=30, lr=1e-3))
    return Recipe(stages=tuple(stages), arch=arch)
