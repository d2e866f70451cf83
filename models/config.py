"""Everything that determines a detector's topology and quantizers, as plain data."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from .errors import ModelError
from .quantizers import ACTIVATIONS, FULL_PRECISION, QUANTIZED_BITS, WEIGHTS

ARCHITECTURES = ("resnet23", "resnet34", "resnet50")


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """What :func:`qmdd.models.build_detector` builds; stored in every checkpoint.

    Attributes:
        arch: one of :data:`ARCHITECTURES`.
        bits: width of weights and activations (2, 3, 4, 8), or 32: the full-precision twin.
        activation: activation quantizer, one of ``minmax``, ``lsq``, ``n2uq``.
        weight: weight quantizer, likewise.
        slr: wrap the activation quantizers in SLR (Eq. 10-11).
        cqb: weighted shortcut around every quantised convolution (Eq. 6-9).
        std: per-channel pixel standard deviation of the normalisation (the mean cancels in NPR).
    """

    arch: str = "resnet23"
    bits: int = 2
    activation: str = "n2uq"
    weight: str = "n2uq"
    slr: bool = True
    cqb: bool = True
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        choices: list[tuple[str, object, tuple[object, ...]]] = [
            ("arch", self.arch, ARCHITECTURES),
            ("bits", self.bits, (*QUANTIZED_BITS, FULL_PRECISION)),
            ("activation", self.activation, ACTIVATIONS),
            ("weight", self.weight, WEIGHTS),
            ("slr", self.slr, (True, False)),
            ("cqb", self.cqb, (True, False)),
        ]
        for name, value, allowed in choices:
            if value not in allowed or type(value) is not type(allowed[0]):
                raise ModelError(
                    f"{name}={value!r} is not supported; choose from "
                    + ", ".join(str(a) for a in allowed)
                )
        if len(self.std) != 3 or not all(isinstance(s, float) and 0 < s < 1e3 for s in self.std):
            raise ModelError(f"std={self.std!r} must be three positive numbers")

    @property
    def quantized(self) -> bool:
        """False for the full-precision twin."""
        return self.bits != FULL_PRECISION

    def to_json(self) -> str:
        """The configuration as one line of JSON, keys sorted."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DetectorConfig:
        """Inverse of :meth:`to_json`; raises :class:`ModelError` on anything unexpected."""
        try:
            fields: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"configuration is not JSON: {error}") from error
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or not known.issuperset(fields):
            raise ModelError(f"configuration must be an object with keys among {sorted(known)}")
        if isinstance(fields.get("std"), list):
            fields["std"] = tuple(fields["std"])
        return cls(**fields)
