"""What a model's configuration is made from, and whether two of them serve the same model."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ..errors import ExportError

ONNXRUNTIME, TENSORRT = "onnxruntime", "tensorrt"
#: Images that Triton may put into one batch, unless asked otherwise.
MAX_BATCH = 8
#: Microseconds that the first image of a batch waits for others.
QUEUE_DELAY_US = 2000
#: Where an instance computes.
DEVICES = ("cpu", "gpu")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str) -> str:
    """``name``, if it can be a model's: it is a folder's name and a part of addresses.

    Raises:
        ExportError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"model name {name!r}: give letters, digits, '.', '_' and '-', at most 128, the first "
            "of them a letter or digit"
        )
    return name


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the user chose; ``None`` leaves it to the bundle.

    Attributes:
        max_batch: most images in one batch.
        queue_delay_us: microseconds that a batch waits to be filled.
        device: one of :data:`DEVICES`.
        threads: of one instance on a CPU; 0: one a core.
    """

    max_batch: int | None = None
    queue_delay_us: int | None = None
    device: str | None = None
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """What ``config.pbtxt`` says; all of it plain, so that it can be read back.

    Attributes:
        name: the model's.
        backend: ``onnxruntime`` or ``tensorrt``.
        sides: least and longest side of an image, and of what it must be a multiple.
        threshold: score above which an image is called fake.
        arch: of the network.
        bits: of weights and activations.
        max_batch: most images in one batch.
        best_batch: batch that leaves at once, without waiting for more.
        queue_delay_us: microseconds that a batch waits to be filled.
        device: ``cpu`` or ``gpu``.
        threads: of one instance on a CPU; 0: one a core.
        plans: engines' files by compute capability, such as ``{"8.6": "model.plan"}``.
        versions: by number, what each version is: hashes and proof, as plain text.
    """

    name: str
    backend: str
    sides: dict[str, int]
    threshold: float
    arch: str
    bits: int
    max_batch: int
    best_batch: int
    queue_delay_us: int
    device: str
    threads: int
    plans: dict[str, str]
    versions: dict[str, dict[str, str]]

    @property
    def dims(self) -> list[int]:
        """Shape of one image, ``[3, height, width]``; -1 where it is free."""
        low, high = self.sides["min_side"], self.sides["max_side"]
        return [3, *([low] * 2 if low == high else [-1] * 2)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    def refusal(self, later: Settings) -> str | None:
        """Why ``later`` cannot be a further version of the same model; ``None`` if it can.

        A client must be able to send to any version what it sends to this one, and one
        configuration describes them all.
        """
        for what in ("backend", "dims", "sides", "threshold", "plans"):
            held, new = getattr(self, what), getattr(later, what)
            if held != new:
                return f"{what} {_short(held)}, not {_short(new)}"
        return None


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in sorted(value.items())) or "none"
    return str(value)
