"""Everything that determines a detector's topology and quantizers, as plain data."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from .errors import ModelError
from .quantizers import ACTIVATIONS, FULL_PRECISION, QUANTIZED_BITS, WEIGHTS

#: Names of the networks.
ARCHITECTURES = (
    "resnet23",
    "resnet34",
    "resnet50",
    "mobilenetv2",
    "npr_resnet50",
    "n2uq_resnet18",
    "n2uq_resnet34",
    "n2uq_resnet50",
)
REPRESENTATIONS = ("npr", "rgb")
#: Quantizer of activations and of weights where none is asked for; ReActNet's at one bit.
_DEFAULT_KIND, _BINARY = "n2uq", "binary"
#: Architectures whose activations a ReLU has passed: their sign is always the same.
_RECTIFIED = ("npr_resnet50",)
#: Weight quantizers whose grid has no two levels to either side of zero.
_NOT_BINARY = ("minmax", "lsq")
#: A narrower network has stages without channels, a wider one no checkpoint could hold.
SMALLEST_WIDTH, LARGEST_WIDTH = 1 / 16, 4.0


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """What :func:`qmdd.models.build_detector` builds; stored in every checkpoint.

    Attributes:
        arch: one of :data:`ARCHITECTURES`.
        bits: width of weights and activations (1, 2, 3, 4, 8), or 32: the full-precision twin.
        activation: activation quantizer: ``minmax``, ``lsq``, ``n2uq``, or ``binary`` (1 bit only);
            by default ``n2uq``, at one bit ``binary`` (not where a ReLU stands before it).
        weight: weight quantizer, likewise; ``minmax`` and ``lsq`` need two bits or more.
        slr: wrap the activation quantizers in SLR (Eq. 10-11).
        cqb: weighted shortcut around every quantised convolution (Eq. 6-9).
        representation: what the stem sees, ``npr`` (Eq. 1-2) or ``rgb``.
        width: factor of all channel counts, 1 for the published networks.
        layer_bits: widths that differ from ``bits``, by layer name (mixed precision).
        std: per-channel pixel standard deviation of the normalisation.
    """

    arch: str = "resnet23"
    bits: int = 2
    activation: str = ""
    weight: str = ""
    slr: bool = True
    cqb: bool = True
    representation: str = "npr"
    width: float = 1.0
    layer_bits: tuple[tuple[str, int], ...] = ()
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("activation", "weight"):
            if getattr(self, name) in ("", None):
                rectified = name == "activation" and self.arch in _RECTIFIED
                kind = _BINARY if self.bits == 1 and not rectified else _DEFAULT_KIND
                object.__setattr__(self, name, kind)
        self._check_choices()
        self._check_std()
        self._check_width()
        self._check_layer_bits()
        for bits in (self.bits, *(bits for _, bits in self.layer_bits)):
            self._check_kinds(bits)

    def _check_choices(self) -> None:
        choices: list[tuple[str, object, tuple[object, ...]]] = [
            ("arch", self.arch, ARCHITECTURES),
            ("bits", self.bits, (*QUANTIZED_BITS, FULL_PRECISION)),
            ("activation", self.activation, ACTIVATIONS),
            ("weight", self.weight, WEIGHTS),
            ("slr", self.slr, (True, False)),
            ("cqb", self.cqb, (True, False)),
            ("representation", self.representation, REPRESENTATIONS),
        ]
        for name, value, allowed in choices:
            if value not in allowed or type(value) is not type(allowed[0]):
                raise ModelError(
                    f"{name}={value!r} is not supported; choose from "
                    + ", ".join(str(a) for a in allowed)
                )

        if self.arch in _RECTIFIED and self.activation == _BINARY:
            raise ModelError(
                f"activation={_BINARY!r} takes the sign, and a ReLU stands before every quantizer "
                f"of {self.arch}: choose n2uq, lsq or minmax"
            )

    def _check_std(self) -> None:
        std = self.std
        three = isinstance(std, (tuple, list)) and len(std) == 3
        if not three or not all(isinstance(s, float) and 0 < s < 1e3 for s in std):
            raise ModelError(f"std={std!r} must be three positive numbers")

    def _check_width(self) -> None:
        width = self.width
        if type(width) not in (int, float):
            raise ModelError(f"width={width!r} must be a number")
        if not SMALLEST_WIDTH <= width <= LARGEST_WIDTH:
            raise ModelError(f"width={width} must lie within {SMALLEST_WIDTH} and {LARGEST_WIDTH}")
        object.__setattr__(self, "width", float(width))

    def _check_layer_bits(self) -> None:
        try:
            given = dict(self.layer_bits)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"layer_bits={self.layer_bits!r} must be pairs of a layer's name and its width"
            ) from error
        if given and not self.quantized:
            raise ModelError("a full-precision detector has no layer_bits; give bits as well")
        for name, bits in given.items():
            if type(name) is not str or type(bits) is not int or bits not in QUANTIZED_BITS:
                raise ModelError(
                    f"layer_bits: {name!r}: {bits!r}; a layer's width is one of "
                    + ", ".join(map(str, QUANTIZED_BITS))
                )
        object.__setattr__(self, "layer_bits", tuple(sorted(given.items())))

    def _check_kinds(self, bits: int) -> None:
        if bits == 1 and self.weight in _NOT_BINARY:
            raise ModelError(
                f"weight={self.weight!r} has no grid of one bit; choose binary or n2uq, or more "
                "bits"
            )
        for name, kind in (("activation", self.activation), ("weight", self.weight)):
            if kind == _BINARY and bits not in (1, FULL_PRECISION):
                raise ModelError(
                    f"{name}={kind!r} is a quantizer of one bit, not of {bits}; choose another one"
                )

    @property
    def quantized(self) -> bool:
        """False for the full-precision twin."""
        return self.bits != FULL_PRECISION

    def bits_of(self, layer: str) -> int:
        """Width of the layer called ``layer``."""
        return dict(self.layer_bits).get(layer, self.bits)

    def channels(self, count: int) -> int:
        """``count`` channels of the published network at this width: a multiple of 4, at least 4.

        >>> DetectorConfig(width=0.25).channels(64)
        16
        """
        return count if self.width == 1 else max(4, 4 * round(count * self.width / 4))

    def to_json(self) -> str:
        """The configuration as one line of JSON, keys sorted."""
        fields = {**dataclasses.asdict(self), "layer_bits": dict(self.layer_bits)}
        return json.dumps(fields, sort_keys=True)

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
        widths = fields.get("layer_bits", {})
        if not isinstance(widths, dict):
            raise ModelError("configuration: layer_bits must be an object of widths by layer name")
        return cls(**{**fields, "layer_bits": tuple(widths.items())})
